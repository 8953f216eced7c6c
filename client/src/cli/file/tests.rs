//! What a pipeline file means, and every way in which it can be wrong.

use serde_json::json;
use stageline_protocol::pipeline::Site;

use super::*;

fn parse(text: &str) -> Result<PipelineFile, FileError> {
    let lookup = |name: &str| (name == "DIR").then(|| "/data".to_owned());
    PipelineFile::parse(Path::new("dir/links.yaml"), text, &lookup)
}

/// The error of a file, as it is printed.
fn wrong(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// The error of a file with this one stage.
fn wrong_stage(stage: &str) -> String {
    wrong(&format!("source: stdin\nstages:\n  - {stage}\n"))
}

const WHOLE: &str = r#"
name: broken-links
source: { files: ["${DIR}/{a,b}/**/*.html", x] }
stages:
  - read
  - jq: '.text
         | length'
  - name: links
    run: my_function
    op: flat_map
    params: { depth: 2, on: [true, null] }
    workers: 8
    workers_per: 4
    buffer: 16
    timeout: 1m30s
    retry: 3
  - { jq: '. * 2', workers: 4 }
  - { read: 2KiB }
  - fetch
sink: { file: "${DIR}/out.jsonl" }
errors: errors.jsonl
fail_fast: true
max_in_flight: 1000
"#;

#[test]
fn a_whole_file_means_what_it_says() {
    let file = parse(WHOLE).expect("a good file");
    assert_eq!(file.name, "broken-links");
    let globs = ["/data/a/**/*.html", "/data/b/**/*.html", "x"].map(str::to_owned).to_vec();
    assert_eq!(file.source, SourceSpec::Files(globs));
    assert_eq!(file.sink, SinkSpec::File("/data/out.jsonl".into()));
    assert_eq!(file.errors, Some("errors.jsonl".into()));
    assert!(file.fail_fast);

    let pipeline = file.pipeline(&|name| (name == "fetch").then_some(Op::Filter));
    assert_eq!((pipeline.name.as_str(), pipeline.max_in_flight), ("broken-links", Some(1000)));
    let shown: Vec<String> = pipeline
        .stages
        .iter()
        .map(|s| format!("{} {} {} {:?}", s.name, s.op, s.function, s.site))
        .collect();
    assert_eq!(
        shown,
        [
            "files source files Client",
            "read map read Fleet",
            "jq flat_map jq Fleet",
            "links flat_map my_function Fleet",
            "jq-2 flat_map jq Fleet",
            "read-2 map read Fleet",
            "fetch filter fetch Fleet",
            "file terminal file Client",
        ]
    );
    let links = &pipeline.stages[3];
    assert_eq!((links.workers, links.workers_per, links.retries), (Some(8), Some(4), 3));
    assert_eq!(links.timeout, Some(Duration::from_secs(90)));
    let params = |stage: usize| {
        let params = &pipeline.stages[stage].params;
        rmp_serde::from_slice::<serde_json::Value>(params).expect("MessagePack")
    };
    assert_eq!(params(3), json!({"depth": 2, "on": [true, null]}));
    assert_eq!(params(2), json!(".text | length"));
    assert_eq!(params(5), json!(2048));
    assert!(pipeline.stages[1].params.is_empty());
    let chain: Vec<_> = pipeline.channels.iter().map(|c| (c.from.0, c.to.0, c.buffer)).collect();
    let buffers = [None, None, Some(16), None, None, None, None];
    let expected: Vec<_> = (0..).zip(buffers).map(|(n, buffer)| (n, n + 1, buffer)).collect();
    assert_eq!(chain, expected);
}

#[test]
fn what_is_left_out_has_its_default() {
    let file = parse("source: { lines: \"-\" }\nstages: []\n").expect("a good file");
    assert_eq!((file.name.as_str(), &file.source), ("links", &SourceSpec::Stdin));
    assert_eq!((&file.sink, &file.errors, file.fail_fast), (&SinkSpec::Stdout, &None, false));
    let pipeline = file.pipeline(&|_| None);
    assert_eq!(pipeline.stages.len(), 2);
    assert!(pipeline.stages.iter().all(|stage| stage.site == Site::Client));

    let unknown = parse("source: stdin\nstages: [fetch, {run: fetch, name: stdin}]").expect("good");
    let names: Vec<String> = unknown
        .pipeline(&|_| None)
        .stages
        .into_iter()
        .map(|s| format!("{} {}", s.name, s.op))
        .collect();
    assert_eq!(names, ["stdin-2 source", "fetch map", "stdin map", "stdout terminal"]);
}

#[test]
fn a_typo_in_a_key_is_placed_and_put_right() {
    assert_eq!(
        wrong("source: stdin\nstagse: []\n"),
        "dir/links.yaml:2:1: a pipeline has no setting `stagse`; did you mean `stages`? Its \
         settings are `name`, `source`, `stages`, `sink`, `errors`, `fail_fast` and `max_in_flight`"
    );
    assert_eq!(
        wrong("source: { file: x }\nstages: []\n"),
        "dir/links.yaml:1:11: the source has no setting `file`; did you mean `files`? Its \
         settings are `lines` and `files`"
    );
    assert_eq!(
        wrong("source: stdin\nstages: []\nsink: { path: x }\n"),
        "dir/links.yaml:3:9: the sink has no setting `path`. Its settings are `file`"
    );
    assert_eq!(
        wrong_stage("{ run: x, wrokers: 3 }"),
        "dir/links.yaml:3:15: a stage has no setting `wrokers`; did you mean `workers`? Its \
         settings are `run`, `params`, `op`, `jq`, `read`, `stat`, `name`, `workers`, \
         `workers_per`, `buffer`, `timeout` and `retry`"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_placed_and_described() {
    for (text, error) in [
        ("- a\n", "1:1: a pipeline is a table of settings; this is a list"),
        ("source: 3\nstages: []", "1:9: the source is a table of settings; this is the number 3"),
        (
            "source: nowhere\nstages: []",
            "1:9: the source is `stdin`, `{ lines: GLOB }` or `{ files: GLOB }`; this is the text \"nowhere\"",
        ),
        (
            "source: { lines: a, files: b }\nstages: []",
            "1:9: the source is `stdin`, `{ lines: GLOB }` or `{ files: GLOB }`: exactly one of them",
        ),
        (
            "source: { lines: [a, \"-\"] }\nstages: []",
            "1:9: `-`, standard input, stands alone in `lines`",
        ),
        (
            "source: { lines: [] }\nstages: []",
            "1:18: `lines` is an empty list; it needs at least one entry",
        ),
        (
            "source: { lines: [a, 1] }\nstages: []",
            "1:22: `lines` is a text; this is the number 1: put it in quotes",
        ),
        ("source: { files: \"\" }\nstages: []", "1:18: `files` must not be empty"),
        ("source: stdin\nstages: read", "2:9: `stages` is a list, one line for each: `- read`"),
        (
            "source: stdin\nstages: []\nsink: out.jsonl",
            "3:7: the sink is `stdout` or `{ file: NAME }`; this is the text \"out.jsonl\"",
        ),
        (
            "source: stdin\nstages: []\nerrors: [a]",
            "3:9: `errors` is a text; this is a list: put it in quotes",
        ),
        (
            "source: stdin\nstages: []\nfail_fast: 1",
            "3:12: `fail_fast` is true or false; this is the number 1",
        ),
        (
            "source: stdin\nstages: []\nmax_in_flight: 0",
            "3:16: `max_in_flight` is a whole number of at least 1; this is the number 0",
        ),
    ] {
        assert_eq!(wrong(text), format!("dir/links.yaml:{error}"));
    }
}

#[test]
fn a_missing_part_is_asked_for_with_an_example() {
    assert!(wrong("stages: []").contains("a pipeline needs `source`, for example"));
    assert!(wrong("source: stdin").contains("a pipeline needs `stages`, for example"));
    assert!(wrong("source: stdin\nstages:\n").contains("needs `stages`"));
    assert!(wrong("").starts_with("dir/links.yaml:"), "{}", wrong(""));
    assert!(wrong("source: stdin\nstages: []\nsink: {}").contains("`{ file: NAME }`"));
}

#[test]
fn a_wrong_stage_is_placed_and_described() {
    for (stage, error) in [
        ("3", "3:5: a stage is a table of settings; this is the number 3"),
        ("jq", "3:5: `jq` needs its expression: `- jq: '.field'`"),
        ("jq:", "3:5: `jq` needs its expression: `- jq: '.field'`"),
        ("jq: 3", "3:9: `jq` is a text; this is the number 3: put it in quotes"),
        (
            "jq: '. | nosuch'",
            "3:9: bad jq expression, line 1, column 5: there is no function `nosuch`\n    . | nosuch\n        ^",
        ),
        ("stat: 3", "3:11: `stat` has no parameter; write `- stat`"),
        (
            "read: 3MB",
            "3:11: `read`: \"3MB\" is not a size; write for example 4096, 64KiB or 16MiB",
        ),
        (
            "name: links",
            "3:5: a stage needs its function: `run: FUNCTION`, or one of `jq`, `read` and `stat`",
        ),
        ("{ run: x, jq: . }", "3:5: one stage has one function; this has `run` and `jq`"),
        ("{ jq: ., op: map }", "3:18: `op` belongs to `run`; `jq` has its own"),
        ("{ run: jq }", "3:5: `jq` is a stock function: write `jq:`"),
        ("{ run: x, op: fold }", "3:19: `op` is `map`, `filter` or `flat_map`; this is `fold`"),
        (
            "{ run: x, workers: 0 }",
            "3:24: `workers` is a whole number of at least 1; this is the number 0",
        ),
        (
            "{ run: x, workers: -1 }",
            "3:24: `workers` is a whole number of at least 1; this is the number -1",
        ),
        (
            "{ run: x, workers: 5000000000 }",
            "3:24: `workers` is a whole number of at least 1; this is the number 5000000000",
        ),
        (
            "{ run: x, buffer: 1.5 }",
            "3:23: `buffer` is a whole number of at least 0; this is the number 1.5",
        ),
        (
            "{ run: x, timeout: 10 }",
            "3:24: `timeout`: the number 10 is not a duration; write it with its unit, for example 10s",
        ),
        (
            "{ run: x, timeout: soon }",
            "3:24: `timeout`: \"soon\" is not a duration; write for example 500ms, 10s, 1m30s or 2h",
        ),
        ("{ run: x, timeout: 0s }", "3:24: `timeout`: a duration of zero leaves no time at all"),
        (
            "{ run: x, retry: often }",
            "3:22: `retry` is a whole number of at least 0; this is the text \"often\"",
        ),
    ] {
        assert_eq!(wrong_stage(stage), format!("dir/links.yaml:{error}"), "{stage}");
    }
    let twice = wrong("source: stdin\nstages:\n- {run: a, name: x}\n- {run: b, name: x}\n");
    assert_eq!(
        twice,
        "dir/links.yaml:4:3: a second stage named `x`; the first is in line 3. Give one of them another name"
    );
}

#[test]
fn an_unset_variable_is_named_with_its_place() {
    assert_eq!(
        wrong("source:\n  files: ${NOWHERE}/*\nstages: []"),
        "dir/links.yaml:2:10: the environment variable NOWHERE is not set; set it, or write ${NOWHERE:-default}"
    );
    assert!(wrong("source: stdin\nstages: []\nerrors: ${NOWHERE}").contains(":3:9: "));
    assert!(wrong("source: stdin\nstages: []\nerrors: ${NOWHERE:-}").contains("empty file name"));
}

#[test]
fn what_is_not_yaml_or_not_there_is_an_error_of_the_file() {
    let error = wrong("source: [1\nstages: []\n");
    assert!(error.starts_with("dir/links.yaml:"), "{error}");
    assert!(wrong("source: stdin\nsource: stdin\nstages: []\n").contains("source"));

    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.yaml");
    let error = PipelineFile::load(&missing).expect_err("missing").to_string();
    assert!(error.contains("missing.yaml") && error.contains("current folder"), "{error}");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, b"\xff\xfe").expect("written");
    assert!(PipelineFile::load(&binary).expect_err("binary").message.contains("UTF-8"));
}

#[test]
fn a_function_that_the_program_does_not_have_is_named_with_its_place() {
    let file = parse("source: stdin\nstages: [read, raed]\n").expect("good");
    let known = ["jq", "read", "stat"];
    let error = file.unknown_function(&known).expect("raed").to_string();
    assert!(
        error.starts_with(
            "dir/links.yaml:2:16: there is no function `raed`; did you mean `read`? This program \
             has `jq`, `read` and `stat`."
        ),
        "{error}"
    );
    assert_eq!(file.unknown_function(&["read", "raed"]), None);
}

#[test]
fn a_parameter_beyond_all_range_is_refused_with_its_place() {
    for number in ["1e400", "[-1e400]", "{ b: .inf }", ".nan"] {
        let error = wrong_stage(&format!("{{ run: f, params: {{ a: {number} }} }}"));
        assert!(error.contains(":3:") && error.contains("non-finite"), "{number}: {error}");
    }
}
