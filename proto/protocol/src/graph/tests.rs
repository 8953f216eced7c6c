use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::control::FailureKind;
use crate::pipeline::Channel;

#[test]
fn a_line_of_stages_is_one_section() {
    let graph = Graph::new(line(&[Op::Map, Op::Filter, Op::FlatMap])).unwrap();
    let ids: Vec<_> = (0..5).map(StageId).collect();
    assert_eq!(graph.order(), ids);
    assert_eq!(
        graph.sections(),
        [Section { source: StageId(0), stages: ids, boundaries: vec![StageId(4)] }]
    );
    assert_eq!(graph.sources().collect::<Vec<_>>(), [StageId(0)]);
    assert_eq!(graph.terminals().collect::<Vec<_>>(), [StageId(4)]);
}

#[test]
fn a_sink_and_the_error_terminal_behind_it_are_both_boundaries() {
    let graph = Graph::new(with_sink()).unwrap();
    assert_eq!(graph.sections()[0].boundaries, [StageId(1), StageId(2)]);
}

#[test]
fn two_sources_that_meet_are_two_sections() {
    let mut p = pipeline(&[
        ("a", Op::Source),
        ("b", Op::Source),
        ("own", Op::Map),
        ("both", Op::Map),
        ("out", Op::Terminal),
        ("side", Op::Terminal),
    ]);
    p.channels = [(0, 2), (2, 3), (1, 3), (3, 4), (2, 5)].map(channel).to_vec();
    let graph = Graph::new(p).unwrap();
    let stages: Vec<Vec<u32>> =
        graph.sections().iter().map(|s| s.stages.iter().map(|s| s.0).collect()).collect();
    assert_eq!(stages, [vec![0, 2, 3, 4, 5], vec![1, 3, 4]]);
    assert_eq!(graph.sections()[1].boundaries, [StageId(4)]);
}

#[test]
fn a_path_has_no_more_expansions_than_a_lineage_has_steps() {
    assert!(Graph::new(line(&[Op::FlatMap; MAX_STEPS])).is_ok());
    let error = Graph::new(line(&[Op::FlatMap; MAX_STEPS + 1])).unwrap_err();
    assert!(matches!(error, GraphError::TooDeep { depth: 65, max: 64, .. }), "{error}");
}

/// One row for each thing that can be wrong: how it comes about, and what the error must name.
#[test]
fn each_error_names_the_stage_and_the_remedy() {
    type Break = fn(&mut Pipeline);
    let rows: &[(Break, &[&str])] = &[
        (|p| p.stages.clear(), &["\"test\"", "no stages", "source"]),
        (|p| p.stages[1].name = "  ".into(), &["stage 1", "empty name"]),
        (|p| p.stages[1].function.clear(), &["\"s1\"", "no function"]),
        (|p| p.stages[2].name = "s1".into(), &["\"s1\"", "stage 1", "stage 2", "name(..)"]),
        (|p| p.channels[2].to = StageId(9), &["channel 2", "stage 9 does not exist", "0 to 3"]),
        (|p| p.channels[0].from = StageId(7), &["channel 0", "stage 7 does not exist"]),
        (|p| p.stages[0].op = Op::Map, &["no source"]),
        (|p| p.channels.push(channel((2, 1))), &["\"s1\", \"s2\"", "cycle", "remove"]),
        (|p| p.channels.push(channel((2, 2))), &["stages \"s2\" form a cycle"]),
        (
            |p| {
                p.stages[1].op = Op::Source;
            },
            &["source \"s1\"", "input from stage \"in\"", "map"],
        ),
        (
            |p| {
                p.stages[2].op = Op::Terminal;
                p.stages[2].site = Site::Client;
            },
            &["terminal \"s2\"", "output to stage \"out\"", "before it"],
        ),
        (|p| p.stages[3].site = Site::Fleet, &["terminal \"out\"", "for_each"]),
        (|p| p.channels[1].to = StageId(3), &["\"s1\"", "no input", "connect"][1..]),
        (|p| p.channels.truncate(2), &["\"s2\"", "no terminal and no sink", "collect"]),
        (|p| p.stages[1].workers = Some(0), &["\"s1\"", "workers(0)", "at least 1"]),
        (|p| p.stages[1].workers_per = Some(0), &["\"s1\"", "workers_per(0)"]),
        (|p| p.stages[1].timeout = Some(Duration::ZERO), &["\"s1\"", "timeout(0)"]),
        (|p| p.stages[0].workers = Some(1), &["source \"in\"", "workers(..)", "leave it out"]),
        (|p| p.stages[0].workers_per = Some(1), &["source \"in\"", "workers_per(..)"]),
        (|p| p.stages[3].timeout = Some(Duration::from_secs(1)), &["terminal \"out\"", "timeout"]),
        (|p| p.stages[3].retries = 2, &["terminal \"out\"", "retry(..)"]),
        (|p| p.channels[1].carries = Carries::Errors, &["map \"s1\"", "errors only"]),
        (|p| p.stages[2].op = Op::Sink, &["for_each \"s2\"", "output to stage \"out\"", "map"]),
        (|p| p.max_in_flight = Some(0), &["\"test\"", "max_in_flight(0)", "at least 1"]),
    ];
    for (number, (break_it, must_name)) in rows.iter().enumerate() {
        let mut p = line(&[Op::Map, Op::Map]);
        break_it(&mut p);
        let error = Graph::new(p).expect_err(&format!("row {number}"));
        let text = error.to_string();
        for part in *must_name {
            assert!(text.contains(part), "row {number}: {text:?} lacks {part:?}");
        }
        assert_eq!(error.kind(), FailureKind::Invalid, "row {number}");
    }
}

#[test]
fn a_sink_needs_exactly_one_way_for_its_errors_to_a_terminal() {
    let missing = |p| match Graph::new(p) {
        Err(GraphError::SinkWithoutErrors { stage }) => stage,
        other => panic!("{other:?}"),
    };
    let mut p = with_sink();
    p.channels.pop();
    p.stages.pop();
    assert_eq!(missing(p), "save");

    let mut p = with_sink();
    p.channels.push(p.channels[1].clone());
    assert_eq!(missing(p), "save");

    let mut p = with_sink();
    p.stages.push(stage("late", Op::Terminal));
    p.stages[2] = stage("repair", Op::Map);
    p.channels.push(channel((2, 3)));
    assert_eq!(missing(p), "save");
}

#[test]
fn declared_types_of_neighbours_must_be_equal() {
    let mut p = line(&[Op::Map, Op::Filter]);
    p.stages[0].output = Some(tag("Url", 1));
    p.stages[1].input = Some(tag("Url", 1));
    p.stages[1].output = Some(tag("Page", 1));
    p.stages[3].input = Some(tag("Page", 1));
    assert!(Graph::new(p.clone()).is_ok());

    let mut other = p.clone();
    other.stages[1].input = Some(tag("Url", 2));
    let error = Graph::new(other).unwrap_err();
    assert_eq!(error.kind(), FailureKind::TypeMismatch);
    assert!(
        error.to_string().contains("\"in\" makes Url, but stage \"s1\" takes Url v2"),
        "{error}"
    );

    // The undeclared filter between them passes on what it gets.
    let mut other = p.clone();
    other.stages[3].input = Some(tag("Text", 1));
    let error = Graph::new(other).unwrap_err().to_string();
    assert!(error.contains("\"s1\" makes Page, but stage \"out\" takes Text"), "{error}");

    p.stages[2].input = Some(tag("Page", 1));
    p.stages[2].output = Some(tag("Text", 1));
    let error = Graph::new(p).unwrap_err();
    assert_eq!(error.kind(), FailureKind::TypeMismatch);
    assert!(error.to_string().contains("filter \"s2\" takes Page"), "{error}");
}

#[test]
fn a_function_must_be_for_the_stages_operator_and_types() {
    let mut p = line(&[Op::Map, Op::Map]);
    p.stages[1].input = Some(tag("Url", 1));
    let graph = Graph::new(p).unwrap();
    let s1 = StageId(1);
    assert_eq!(graph.check_function(s1, &function(Op::Map, None, None)), Ok(()));
    assert_eq!(graph.check_function(s1, &function(Op::Map, Some("Url"), Some("Page"))), Ok(()));

    let error = graph.check_function(s1, &function(Op::FlatMap, None, None)).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Invalid);
    assert!(error.to_string().contains("\"s1\" is a map, but \"f\" is registered as a flat_map"));

    let error = graph.check_function(s1, &function(Op::Map, Some("Uri"), None)).unwrap_err();
    assert_eq!(error.kind(), FailureKind::TypeMismatch);
    assert!(
        error
            .to_string()
            .contains("\"s1\" takes Url, but the function \"f\" is registered to take Uri")
    );

    // Where stages declare nothing, the functions' types must fit each other.
    let (a, b) = (function(Op::Map, None, Some("Page")), function(Op::Map, Some("Doc"), None));
    let error = graph.check_functions(&[(s1, &a), (StageId(2), &b)].into()).unwrap_err();
    assert!(error.to_string().contains("\"s1\" makes Page, but stage \"s2\" takes Doc"), "{error}");
}

proptest! {
    /// Whatever is declared is either refused or has the properties that a graph promises.
    #[test]
    fn what_is_accepted_is_legal(
        ops in prop::collection::vec(0usize..6, 1..7),
        edges in prop::collection::vec((0u32..7, 0u32..7, any::<bool>()), 0..9),
    ) {
        let all = [Op::Source, Op::Map, Op::Filter, Op::FlatMap, Op::Sink, Op::Terminal];
        let mut p = Pipeline { name: "test".into(), ..Pipeline::default() };
        p.stages = ops.iter().enumerate().map(|(i, op)| stage(&format!("s{i}"), all[*op])).collect();
        p.channels = edges.iter().map(|&(a, b, errors)| {
            let mut c = channel((a, b));
            if errors { c.carries = Carries::Errors; }
            c
        }).collect();
        if let Ok(graph) = Graph::new(p) {
            let place = |id| graph.order().iter().position(|s| *s == id).unwrap();
            prop_assert_eq!(graph.order().len(), ops.len());
            for c in &graph.pipeline().channels { prop_assert!(place(c.from) < place(c.to)); }
            let passed: BTreeSet<_> = graph.sections().iter().flat_map(|s| s.stages.iter()).collect();
            prop_assert_eq!(passed.len(), ops.len(), "every stage is reached");
            for section in graph.sections() { prop_assert!(!section.boundaries.is_empty()); }
        }
    }
}

fn stage(name: &str, op: Op) -> Stage {
    Stage::new(name, op, if op.is_single() { Site::Client } else { Site::Fleet })
}

fn pipeline(stages: &[(&str, Op)]) -> Pipeline {
    let stages = stages.iter().map(|(name, op)| stage(name, *op)).collect();
    Pipeline { name: "test".into(), stages, ..Pipeline::default() }
}

fn channel((from, to): (u32, u32)) -> Channel {
    Channel { from: StageId(from), to: StageId(to), carries: Carries::All, buffer: None }
}

/// in → s1 → s2 → … → out
fn line(ops: &[Op]) -> Pipeline {
    let mut p = pipeline(&[("in", Op::Source)]);
    for (number, op) in (1..).zip(ops) {
        p.stages.push(stage(&format!("s{number}"), *op));
    }
    p.stages.push(stage("out", Op::Terminal));
    p.channels = (1..p.stages.len() as u32).map(|to| channel((to - 1, to))).collect();
    p
}

/// in → save ⇢ save errors
fn with_sink() -> Pipeline {
    let mut p = pipeline(&[("in", Op::Source), ("save", Op::Sink), ("save errors", Op::Terminal)]);
    p.channels = vec![channel((0, 1)), Channel { carries: Carries::Errors, ..channel((1, 2)) }];
    p
}

fn tag(name: &str, version: u32) -> TypeTag {
    TypeTag { name: name.into(), version }
}

fn function(op: Op, input: Option<&str>, output: Option<&str>) -> Function {
    let tag = |name: &str| tag(name, 1);
    Function {
        name: "f".into(),
        op,
        slots: 4,
        input: input.map(tag),
        output: output.map(tag),
        replayable: true,
    }
}
