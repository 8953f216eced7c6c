//! Sinks on real files, and on writers that fail as a disk and a pipe do.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::json;
use stageline_protocol::ids::StageId;
use stageline_protocol::item::ErrorKind;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}

/// Takes so many bytes, then fails like this.
struct Limited {
    room: usize,
    failure: io::ErrorKind,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(self.failure.into());
        }
        self.room -= taken;
        self.written.lock().expect("not poisoned").extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn limited(room: usize, failure: io::ErrorKind) -> (Sink, Arc<Mutex<Vec<u8>>>) {
    let written = Arc::default();
    let writer = Limited { room, failure, written: Arc::clone(&written) };
    (
        Sink::start(Prepared::Open(Target::Plain(Box::new(writer))), "the place", OUTPUT)
            .expect("starts"),
        written,
    )
}

/// Sends until the sink fails.
async fn fill(sink: &mut Sink) -> SinkError {
    loop {
        if let Err(error) = sink.send(&json!({"line": "of some length"})).await {
            return error;
        }
    }
}

#[test]
fn a_file_takes_its_place_when_it_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.jsonl");
    fs::write(&path, "old\n").expect("written");
    block_on(async {
        let mut sink = Sink::file(&path, OUTPUT).expect("opens");
        sink.send(&json!({"b": 1, "a": [null, "ö\n"]})).await.expect("taken");
        sink.send(&json!("x")).await.expect("taken");
        assert_eq!(fs::read_to_string(&path).expect("there"), "old\n");
        assert_eq!(sink.finish().await.expect("finishes"), 2);
    });
    let expected = format!("{}\n\"x\"\n", json!({"b": 1, "a": [null, "ö\n"]}));
    assert_eq!(fs::read_to_string(&path).expect("there"), expected);
    assert_eq!(names(folder.path()), ["out.jsonl"]);
}

#[test]
fn an_aborted_or_dropped_sink_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.jsonl");
    block_on(async {
        for abort in [true, false] {
            let mut sink = Sink::file(&path, OUTPUT).expect("opens");
            sink.send(&json!(1)).await.expect("taken");
            assert_eq!(names(folder.path()).len(), 1, "the temporary file");
            if abort {
                sink.abort().await;
            } else {
                drop(sink);
            }
            assert!(names(folder.path()).is_empty());
        }
    });
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, "old").expect("written");
    std::os::unix::fs::symlink("real", &link).expect("linked");
    block_on(Sink::file(&link, OUTPUT).expect("opens").finish()).expect("finishes");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(fs::read_to_string(&real).expect("there"), "");
    // Also one to what is not there yet.
    fs::remove_file(&real).expect("removed");
    block_on(Sink::file(&link, OUTPUT).expect("opens").finish()).expect("finishes");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink() && real.exists());
}

#[test]
fn a_place_that_cannot_be_a_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Sink::file(folder.path(), OUTPUT).expect_err("a folder").to_string();
    assert!(error.contains("it is a folder"), "{error}");
    let path = folder.path().join("no/where.jsonl");
    let error = Sink::file(&path, OUTPUT).expect_err("no folder").to_string();
    assert!(error.contains("where.jsonl") && error.contains("there is no folder"), "{error}");
}

#[test]
fn a_full_disk_is_named() {
    let (mut sink, _) = limited(100_000, io::ErrorKind::StorageFull);
    let error = block_on(fill(&mut sink));
    assert!(matches!(&error, SinkError::Full { place, .. } if place == "the place"), "{error}");
    assert!(error.to_string().contains("the disk is full"));
    block_on(async {
        assert!(sink.send(&json!(1)).await.is_err(), "once failed, it stays failed");
        assert!(sink.finish().await.is_err());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_is_written_in_place() {
    let error = block_on(async {
        let mut sink = Sink::errors(Path::new("/dev/full")).expect("opens");
        let _ = sink.send(&json!(1)).await;
        sink.finish().await.expect_err("full")
    });
    assert!(matches!(&error, SinkError::Full { place, .. } if place == "/dev/full"), "{error}");
    assert!(error.to_string().ends_with("with --errors"), "{error}");
    block_on(Sink::file(Path::new("/dev/null"), OUTPUT).expect("opens").finish())
        .expect("finishes");
    assert!(!fs::metadata("/dev/null").expect("there").is_file());
}

#[test]
fn a_closed_pipe_is_told_apart() {
    let (mut sink, written) = limited(100, io::ErrorKind::BrokenPipe);
    let error = block_on(fill(&mut sink));
    assert!(matches!(error, SinkError::Closed { .. }), "{error}");
    assert_eq!(written.lock().expect("not poisoned").len(), 100);
}

#[test]
fn a_reader_sees_a_line_when_no_more_is_waiting() {
    let (mut sink, written) = limited(usize::MAX, io::ErrorKind::Other);
    block_on(sink.send(&json!(1))).expect("taken");
    while written.lock().expect("not poisoned").is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(*written.lock().expect("not poisoned"), b"1\n");
}

/// Takes nothing before it is told to.
struct Stalled {
    begun: std::sync::mpsc::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody asks any more, or nobody holds it up any more.
        let _ = self.begun.send(());
        let _ = self.go_on.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink whose first line is being written and never is, until what is answered beside it is dropped.
fn stalled() -> (Sink, std::sync::mpsc::Sender<()>) {
    let (begun, begins) = std::sync::mpsc::channel();
    let (goes_on, go_on) = std::sync::mpsc::channel();
    let writer = Target::Plain(Box::new(Stalled { begun, go_on }));
    let mut sink = Sink::start(Prepared::Open(writer), "the place", ERRORS).expect("starts");
    block_on(sink.send(&json!(1))).expect("taken");
    begins.recv().expect("it begins");
    (sink, goes_on)
}

/// How many lines of this value are taken before one has to wait.
fn taken(sink: &mut Sink, value: &serde_json::Value) -> usize {
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    let mut taken = 0;
    while std::pin::pin!(sink.send(value)).poll(&mut nobody).is_ready() {
        taken += 1;
    }
    taken
}

#[test]
fn what_waits_is_bounded_in_bytes_and_in_lines() {
    let (mut sink, goes_on) = stalled();
    let large = json!("x".repeat(100_000));
    let large_lines = taken(&mut sink, &large);
    assert!((1..=10).contains(&large_lines), "{large_lines} lines of 100 kB wait");
    drop(goes_on);
    assert_eq!(block_on(sink.finish()).expect("finishes"), 1 + large_lines as u64);

    let (mut sink, goes_on) = stalled();
    assert_eq!(taken(&mut sink, &json!(2)), WAITING_LINES);
    drop(goes_on);
    block_on(sink.send(&json!("there is room again"))).expect("taken");
}

#[test]
fn a_line_larger_than_all_that_may_wait_waits_alone() {
    let (mut sink, goes_on) = stalled();
    let huge = json!("x".repeat(3 << 20));
    assert_eq!(taken(&mut sink, &huge), 0, "beside another");
    drop(goes_on);
    block_on(async {
        for _ in 0..3 {
            sink.send(&huge).await.expect("taken");
        }
        assert_eq!(sink.finish().await.expect("finishes"), 4);
    });
}

#[test]
fn whoever_waits_for_room_hears_that_the_sink_has_failed() {
    let (mut sink, _) = limited(100_000, io::ErrorKind::StorageFull);
    let error = block_on(async {
        loop {
            if let Err(error) = sink.send(&json!("x".repeat(600_000))).await {
                return error;
            }
        }
    });
    assert!(matches!(&error, SinkError::Full { .. }), "{error}");
}

#[test]
fn an_error_item_is_one_line() {
    let error = ItemError {
        stage: "fetch".to_owned(),
        kind: ErrorKind::Timeout,
        message: "took longer than 10 s".to_owned(),
        attempts: 4,
        worker: "w1".to_owned(),
    };
    let line = ErrorLine::new(&Lineage::root(StageId(0), 7), &error);
    assert_eq!(
        serde_json::to_string(&line).expect("JSON"),
        r#"{"lineage":"7","stage":"fetch","kind":"timeout","message":"took longer than 10 s","attempts":4,"worker":"w1"}"#
    );
}
