//! Every bad input, and what the user is told about it: one table.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use stageline_tests::cluster::Cluster;

use crate::{PROGRAM, Ran, command, hostile, run};

/// What can be wrong. Each has at least one row.
const KINDS: [&str; 17] = [
    "a typo in a key",
    "an unknown stage",
    "a bad jq expression",
    "a missing input file",
    "a glob that matches nothing",
    "a coordinator that is not there",
    "a port in use",
    "types that do not fit",
    "a payload above the maximum",
    "a payload that does not decode",
    "a protocol version outside the range",
    "random bytes on the port",
    "plain HTTP on the port",
    "a full disk",
    "a closed pipe",
    "a damaged gzip",
    "Ctrl-C",
];

/// One bad input.
struct Row {
    kind: &'static str,
    how: How,
    /// The exit code; none if no command of ours gets the input.
    code: Option<i32>,
    /// What the user is told; `{coordinator}` stands for its address.
    says: &'static [&'static str],
}

/// What is done.
enum How {
    /// A command, with this text in `p.yaml`.
    Command { file: &'static str, arguments: &'static [&'static str] },
    /// What takes more than a command.
    Story(for<'a> fn(&'a Cluster) -> Told<'a>),
}

type Told<'a> = Pin<Box<dyn Future<Output = Ran> + 'a>>;

const fn command_row(
    kind: &'static str,
    file: &'static str,
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
) -> Row {
    Row { kind, how: How::Command { file, arguments }, code: Some(code), says }
}

/// What a coordinator that is not there is answered with, by whoever looks for it.
const NOBODY: &[&str] = &[
    "no coordinator at 127.0.0.1:1: Connection refused",
    "tried ",
    " times in ",
    "`stageline coordinator`",
    "--coordinator",
];
const IN_USE: &[&str] = &["cannot listen on {coordinator}: ", "in use", "--listen"];

/// The table.
fn rows() -> Vec<Row> {
    vec![
        command_row(
            "a typo in a key",
            "source: stdin\nstagse: [read]\n",
            &["run", "p.yaml"],
            2,
            &["p.yaml:2:1: ", "`stagse`", "did you mean `stages`?"],
        ),
        command_row(
            "an unknown stage",
            "source: { lines: numbers.txt }\nstages: [raed]\n",
            &["run", "p.yaml"],
            2,
            &["p.yaml:2:10: ", "`raed`", "did you mean `read`?", "`jq`", "Correct the name"],
        ),
        command_row(
            "an unknown stage",
            "source: { lines: numbers.txt }\nstages: [raed]\n",
            &["run", "p.yaml", "--coordinator", "{coordinator}", "--wait-stages", "0"],
            2,
            &["\"raed\"", "did you mean \"read\"?", "worker \"w\": ", ", jq, ", "Correct the name"],
        ),
        command_row(
            "a bad jq expression",
            "source: stdin\nstages:\n  - jq: '.a | | b'\n",
            &["run", "p.yaml"],
            2,
            &["p.yaml:3:9: bad jq expression, line 1, column 6", ".a | | b"],
        ),
        command_row(
            "a missing input file",
            "source: { lines: gone.txt }\nstages: []\n",
            &["run", "p.yaml"],
            2,
            &["p.yaml: there is no file gone.txt", "the current folder is ", "Check the spelling"],
        ),
        command_row(
            "a missing input file",
            "",
            &["run", "gone.yaml"],
            2,
            &["gone.yaml: cannot read this pipeline file", "the current folder is "],
        ),
        command_row(
            "a glob that matches nothing",
            "source: { files: 'gone/*.html' }\nstages: [read]\n",
            &["run", "p.yaml"],
            2,
            &["p.yaml: no file matches \"gone/*.html\"", "Check the spelling"],
        ),
        command_row(
            "a coordinator that is not there",
            "source: { lines: numbers.txt }\nstages: [read]\n",
            &["run", "p.yaml", "--coordinator", "127.0.0.1:1", "--connect-timeout", "300ms"],
            2,
            NOBODY,
        ),
        command_row(
            "a coordinator that is not there",
            "",
            &["jobs", "--coordinator", "127.0.0.1:1", "--connect-timeout", "300ms"],
            2,
            NOBODY,
        ),
        command_row(
            "a coordinator that is not there",
            "",
            &["worker", "--coordinator", "127.0.0.1:1", "--connect-timeout", "300ms"],
            2,
            NOBODY,
        ),
        command_row("a port in use", "", &["coordinator", "--listen", "{coordinator}"], 2, IN_USE),
        command_row(
            "a port in use",
            "",
            &["worker", "--coordinator", "{coordinator}", "--listen", "{coordinator}"],
            2,
            IN_USE,
        ),
        Row {
            kind: "types that do not fit",
            how: How::Story(|cluster| Box::pin(hostile::wrong_types(cluster))),
            code: None,
            says: &[
                "\"first\" makes String",
                "registered to make u64",
                "from the same declaration",
            ],
        },
        command_row(
            "a payload above the maximum",
            "source: { files: large.txt }\nstages: [{ read: 1GiB }]\n",
            &["run", "p.yaml"],
            1,
            &["stage \"read\"", "68157", "67108864", "make it smaller", "too_large 1"],
        ),
        command_row(
            "a payload that does not decode",
            "source: { lines: numbers.txt }\nstages:\n  - jq: '{id: ., amount: \"many\"}'\n  \
             - amount\n",
            &["run", "p.yaml"],
            1,
            &["stage \"amount\"", "amount: ", "\"many\"", "expected u64", "decode 3"],
        ),
        Row {
            kind: "a protocol version outside the range",
            how: How::Story(|cluster| Box::pin(hostile::wrong_version(cluster))),
            code: None,
            says: &["\"from the future\"", "98 to 99", "this coordinator 1"],
        },
        Row {
            kind: "random bytes on the port",
            how: How::Story(|cluster| Box::pin(hostile::bytes_on_every_port(cluster))),
            code: Some(0),
            says: &["completed in"],
        },
        Row {
            kind: "plain HTTP on the port",
            how: How::Story(|cluster| Box::pin(hostile::http_on_the_coordinators_port(cluster))),
            code: None,
            says: &["426", "Stageline coordinator", "gRPC", "command line, or an SDK"],
        },
        command_row(
            "a full disk",
            "source: { lines: numbers.txt }\nstages: [{ jq: tonumber }]\n",
            &["run", "p.yaml", "--output", "/dev/full"],
            2,
            &["the disk is full", "/dev/full", "Make room", "--output"],
        ),
        command_row(
            "a full disk",
            "source: { lines: numbers.txt }\nstages: [{ jq: 'error(\"no\")' }]\n",
            &["run", "p.yaml", "--errors", "/dev/full"],
            2,
            &["the disk is full", "/dev/full", "Make room", "elsewhere with --errors"],
        ),
        Row {
            kind: "a full disk",
            how: How::Story(|cluster| Box::pin(hostile::full_standard_output(cluster))),
            code: Some(2),
            says: &["the disk is full: cannot write to standard output", "--output"],
        },
        Row {
            kind: "a closed pipe",
            how: How::Story(|cluster| Box::pin(hostile::closed_pipe(cluster))),
            code: Some(2),
            says: &["standard output was closed by its reader", "cancelled after"],
        },
        command_row(
            "a damaged gzip",
            "source: { lines: damaged.gz }\nstages: [{ jq: tonumber }]\n",
            &["run", "p.yaml"],
            1,
            &["stage \"lines\"", "damaged.gz:3: ", "the rest of this input is missing", "failed 1"],
        ),
        Row {
            kind: "Ctrl-C",
            how: How::Story(|cluster| Box::pin(hostile::ctrl_c(cluster))),
            code: Some(2),
            says: &["cancelled after", "items by worker: ", "error: ended by Ctrl-C"],
        },
    ]
}

#[tokio::test]
async fn every_bad_input_gets_an_error_that_names_thing_place_and_remedy() {
    let rows = rows();
    for kind in KINDS {
        assert!(rows.iter().any(|row| row.kind == kind), "no row for {kind}");
    }
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("w", &[]).await;
    inputs(cluster.dir.path());
    for row in &rows {
        let ran = match row.how {
            How::Story(story) => story(&cluster).await,
            How::Command { file, arguments } => {
                fs::write(cluster.dir.path().join("p.yaml"), file).unwrap();
                let fill = |argument: &&str| argument.replace("{coordinator}", &cluster.address);
                let filled: Vec<String> = arguments.iter().map(fill).collect();
                let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
                run(command(cluster.dir.path(), &filled)).await
            }
        };
        let (kind, told) = (row.kind, &ran.told);
        assert_eq!(ran.code, row.code, "{kind}: {told}");
        for says in row.says {
            let says = says.replace("{coordinator}", &cluster.address);
            assert!(told.contains(&says), "{kind}: {says:?} is not in: {told}");
        }
        let errors = told.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(errors <= 1, "{kind}: {told}");
        assert!(told.matches("(os error").count() <= 1 || row.says == NOBODY, "{kind}: {told}");
        assert!(!told.contains("panicked"), "{kind}: {told}");
    }
    assert_eq!(cluster.coordinator.ended(), None, "{}", cluster.coordinator.log());
    let worker = cluster.workers.get_mut("w").unwrap();
    assert_eq!(worker.ended(), None, "{}", worker.log());
}

/// The files that the rows read.
fn inputs(dir: &Path) {
    fs::write(dir.join("numbers.txt"), "1\n2\n3\n").unwrap();
    // 65 MiB of text, which take no room: the largest payload has 64.
    fs::File::create(dir.join("large.txt")).unwrap().set_len(65 << 20).unwrap();
    // A gzip member of one stored block that ends before it should.
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, 100, 0, !100, 0xff];
    gzip.extend_from_slice(b"1\n2\n");
    fs::write(dir.join("damaged.gz"), gzip).unwrap();
}
