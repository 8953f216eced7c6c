//! The example pipelines, run stage by stage without any runtime: what they find is right.

use std::path::Path;

use serde_json::{Value, json};

use super::file::{PipelineFile, SourceSpec, StageSpec};
use super::source::Inputs;
use crate::stock::{self, Jq};

const BROKEN_LINKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/broken-links.yaml");

/// The pipeline file, with its variables as given.
fn load(variables: &[(&str, &str)]) -> PipelineFile {
    let text = std::fs::read_to_string(BROKEN_LINKS).expect("the example");
    let lookup = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    PipelineFile::parse(Path::new(BROKEN_LINKS), &text, &lookup).expect("a good pipeline file")
}

/// One stock stage.
fn stage(spec: &StageSpec) -> impl Fn(Value) -> Vec<Value> {
    let jq = (spec.function == "jq").then(|| {
        let expression: String = rmp_serde::from_slice(&spec.params).expect("a text");
        Jq::compile(&expression).expect("compiles")
    });
    let function = spec.function.clone();
    move |input| match (&jq, function.as_str()) {
        (Some(jq), _) => {
            let outputs = jq.run(input).map(|output| output.and_then(|output| output.to_json()));
            outputs.collect::<Result<_, _>>().expect("no failure")
        }
        (None, "read") => {
            vec![stock::read(input, stock::DEFAULT_MAX_BYTES).expect("read")]
        }
        (None, "stat") => vec![stock::stat(input).expect("looked at")],
        (None, other) => panic!("{other} is no stock function"),
    }
}

/// All results, as JSON lines, sorted.
fn run(file: &PipelineFile) -> Vec<String> {
    let Ok(Inputs::Files(paths)) = Inputs::resolve(&file.source) else { panic!("no pages") };
    let mut items: Vec<Value> = paths.iter().map(|path| json!(path)).collect();
    for spec in &file.stages {
        items = items.into_iter().flat_map(stage(spec)).collect();
    }
    let mut lines: Vec<String> = items.iter().map(Value::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn the_pages_are_those_of_the_toolchain_unless_told() {
    let file = load(&[("HOME", "/home/me")]);
    let SourceSpec::Files(globs) = &file.source else { panic!("{:?}", file.source) };
    let folder = "/home/me/.rustup/toolchains/1.95.0-*/share/doc/rust/html";
    assert_eq!(globs[0], format!("{folder}/alloc/**/*.html"));
    assert_eq!(globs.len(), 6);
    let file = load(&[("HOME", "/home/me"), ("RUSTUP_HOME", "/opt/rustup")]);
    let SourceSpec::Files(globs) = &file.source else { panic!("{:?}", file.source) };
    assert!(globs[5].starts_with("/opt/rustup/toolchains/"), "{globs:?}");
}

#[test]
fn exactly_the_known_faults_of_a_tree_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("good.html", "<p id='here'>no links");
    write("sub/a b&c.html", "<A HREF='../good.html#x'>up</a> <img\n src = gone.png alt=''>");
    write(
        "index.html",
        r##"<!DOCTYPE html><html><head>
        <!-- <a href="in-a-comment.html"> -->
        <script src="gone.js">document.write("<a href='in-a-script.html'>")</script>
        <script>"<a href='in-another.html'>"</script>
        <link rel=stylesheet href=gone.css></head>
        <a href="good.html">fine</a> <a href="good.html?query#part">fine</a> <a href="sub/">fine</a>
        <a href="sub">fine</a> <a href="sub/a%20b&amp;c.html">fine</a> <a href="">itself</a>
        <a href="#here">here</a> <a href="?q">here</a> <a href="/absolute">elsewhere</a>
        <a href="//host/x">elsewhere</a> <a href="https://host/x">elsewhere</a>
        <a href="mailto:me@example.org">mail</a> <a data-href="no-link.html">no link</a>
        &lt;a href="in-a-text.html"&gt; <a title="a > b" href="gone.html#x">broken</a>
        <a href="gone.html#y">the same</a> <a href="good.html/x">below a file</a>
        <a href="sub/gone%20%C3%A9&amp;.html">broken</a> <a class="x" href='sub/../gone/'>broken</a>
        <a href="./sub/../good.html">fine</a>"##,
    );
    let pages = format!("{}/**/*.html", folder.path().display());
    let file = load(&[("PAGES", &pages)]);
    let at = |page: &str, link: &str| {
        json!({"page": folder.path().join(page), "link": link}).to_string()
    };
    let mut expected = vec![
        at("index.html", "gone.js"),
        at("index.html", "gone.css"),
        at("index.html", "gone.html"),
        at("index.html", "good.html/x"),
        at("index.html", "sub/gone%20%C3%A9&.html"),
        at("index.html", "sub/../gone/"),
        at("sub/a b&c.html", "gone.png"),
    ];
    expected.sort();
    assert_eq!(run(&file), expected);
}
