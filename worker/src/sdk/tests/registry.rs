//! What a registry announces, and what it refuses.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde_json::Value;
use stageline_protocol::pipeline::{Op, Site, Stage, TypeTag};

use super::super::{Registry, Source, StageFunction, name};
use super::*;

const HALVE: name::Stage<u64, f64> = name::Stage::named("halve").output_version(2);
const TICKS: Source<u64> = Source::named("ticks");

fn refusal(registry: &Registry, stage: &Stage) -> String {
    registry.invoker(stage).unwrap_err()
}

#[test]
fn functions_are_announced_by_name_with_types_and_slots() {
    let registry = Registry::new()
        .source(TICKS, |from: u64| stream::iter(from..))
        .not_replayable()
        .map(HALVE, |n: u64| async move { n as f64 / 2.0 })
        .slots(3)
        .blocking_map("any", |v: Value| v)
        .for_each("drop", |_: String| async {});
    assert_eq!(registry.validate(), Ok(()));

    let all = registry.functions();
    let names: Vec<_> = all.iter().map(|f| (f.name.as_str(), f.op)).collect();
    assert_eq!(
        names,
        [("any", Op::Map), ("drop", Op::Sink), ("halve", Op::Map), ("ticks", Op::Source)]
    );
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(all.iter().map(|f| f.slots as usize).collect::<Vec<_>>(), [cores, 64, 3, 64]);

    let tag = |name: &str, version| Some(TypeTag { name: name.into(), version });
    let types: Vec<_> = all.iter().map(|f| (f.input.clone(), f.output.clone())).collect();
    assert_eq!(
        types,
        [
            (None, None),
            (tag("String", 1), None),
            (tag("u64", 1), tag("f64", 2)),
            (None, tag("u64", 1))
        ]
    );
    assert_eq!(all.iter().map(|f| f.replayable).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn mistakes_are_collected_and_refuse_every_use() {
    let registry = Registry::new()
        .slots(2)
        .map("f", |n: u64| async move { n })
        .not_replayable()
        .map("f", |n: u64| async move { n })
        .slots(0)
        .map("", |n: u64| async move { n });
    let said = registry.validate().unwrap_err().to_string();
    for expected in [
        "slots(2) follows no function",
        "not_replayable() follows no source",
        r#"the name "f" is registered twice"#,
        r#""f" has slots(0)"#,
        "empty name",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(refusal(&registry, &stage(Op::Map)).contains(r#""f" is registered twice"#));
    assert!(registry.open_source(&stage(Op::Source), 0, test_context()).is_err());
}

#[test]
fn registries_are_joined() {
    let mine = Registry::new().map("read", |n: u64| async move { n });
    let stock = Registry::new()
        .map("read", |n: String| async move { n })
        .map("jq", |n: Value| async move { n });
    let said = mine.clone().merge(stock.clone()).validate().unwrap_err().to_string();
    assert!(said.contains(r#""read" is registered twice"#), "{said}");

    let joined = mine.with_fallback(stock);
    assert_eq!(joined.validate(), Ok(()));
    assert!(joined.contains("jq"));
    assert_eq!(joined.functions()[1].input.as_ref().unwrap().name, "u64");
}

#[test]
fn a_stage_that_does_not_fit_is_refused_by_name() {
    let registry = Registry::new()
        .map("f", |n: u64| async move { n })
        .source("s", |from: u64| stream::iter(from..9));
    assert!(registry.invoker(&stage(Op::Map)).is_ok());

    let unknown = Stage::new("fech", Op::Map, Site::Fleet);
    assert_eq!(
        refusal(&registry, &unknown),
        r#"stage "fech": no function "fech" is registered here; there is: f, s"#
    );
    assert_eq!(
        refusal(&registry, &stage(Op::Filter)),
        r#"stage "stage" is a filter, and the function "f" is registered as a map"#
    );
    let typed = Stage { input: Some(TypeTag { name: "Url".into(), version: 1 }), ..stage(Op::Map) };
    assert_eq!(
        refusal(&registry, &typed),
        r#"stage "stage" takes Url, and the function "f" registered here takes u64"#
    );
    let set = Stage { params: Bytes::from(".a"), ..stage(Op::Map) };
    assert!(refusal(&registry, &set).contains("has settings"));

    let source = Stage { function: "s".into(), ..stage(Op::Source) };
    assert!(registry.open_source(&source, 0, test_context()).is_ok());
    assert!(refusal(&registry, &source).contains("is a source"));
    assert!(registry.open_source(&stage(Op::Map), 0, test_context()).is_err());
    let timed = Stage { timeout: Some(Duration::from_secs(1)), ..source };
    let said = registry.open_source(&timed, 0, test_context()).err().unwrap();
    assert!(said.contains("no timeout"), "{said}");
}

#[tokio::test]
async fn a_parameterised_function_is_made_once_a_task_of_its_settings() {
    let made = Count::default();
    let count = made.clone();
    let registry = Registry::new()
        .parameterised("f", Op::Map, move |params: &Bytes| {
            count.up();
            let suffix = String::from_utf8(params.to_vec())
                .map_err(|_| "the suffix is no text".to_owned())?;
            Ok(StageFunction::map(move |text: String| {
                let suffixed = text + &suffix;
                async move { suffixed }
            }))
        })
        .slots(5);
    assert_eq!(registry.functions()[0].slots, 5);

    let set = Stage { params: Bytes::from("!"), ..stage(Op::Map) };
    let invoker = registry.invoker(&set).unwrap();
    for _ in 0..2 {
        let slot = Arc::new(Watched::default());
        let reply = invoker.invoke(test_context(), payload("hey"), slot).await;
        assert!(matches!(reply, Ok(Reply::One(p)) if value::<String>(&p) == "hey!"));
    }
    assert_eq!(made.get(), 1);

    let bad = Stage { params: Bytes::from_static(&[0xff]), ..stage(Op::Map) };
    assert_eq!(refusal(&registry, &bad), r#"stage "stage": the suffix is no text"#);
}

#[test]
fn a_factory_that_makes_another_operator_is_refused() {
    let registry = Registry::new().parameterised("f", Op::Map, |_: &Bytes| {
        Ok(StageFunction::filter(|_: u64| async { true }))
    });
    assert!(refusal(&registry, &stage(Op::Map)).contains("its factory made a filter"));
}
