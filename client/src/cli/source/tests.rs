//! Sources on real files.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }
    folder
}

fn spec(
    folder: &TempDir,
    make: impl FnOnce(Vec<String>) -> SourceSpec,
    globs: &[&str],
) -> SourceSpec {
    make(globs.iter().map(|glob| format!("{}/{glob}", folder.path().display())).collect())
}

/// All roots, with the folder cut from their texts.
fn roots(folder: &TempDir, spec: &SourceSpec) -> Vec<Root> {
    let roots = Inputs::resolve(spec).expect("resolves").start().expect("starts");
    let cut = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    futures_executor(roots.map(|root| root.map(cut).map_err(cut)).collect())
}

fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("compressed");
    encoder.finish().expect("compressed")
}

fn ok(texts: &[&str]) -> Vec<Root> {
    texts.iter().map(|text| Ok((*text).to_owned())).collect()
}

#[test]
fn lines_come_file_by_file_in_order() {
    let folder = folder(&[("b.txt", b"3\r\n\n4"), ("a.txt", b"1\n2\n"), ("c.txt", b"")]);
    let spec = spec(&folder, SourceSpec::Lines, &["*.txt", "a.txt"]);
    assert_eq!(roots(&folder, &spec), ok(&["1", "2", "3", "", "4"]));
}

#[test]
fn gzip_is_known_by_its_first_bytes_and_may_have_members() {
    let members = [gzip(b"one\ntw"), gzip(b"o\nthree\n")].concat();
    let folder = folder(&[("a", &members), ("b.gz", b"plain\n")]);
    let spec = spec(&folder, SourceSpec::Lines, &["*"]);
    assert_eq!(roots(&folder, &spec), ok(&["one", "two", "three", "plain"]));
}

#[test]
fn a_byte_order_mark_belongs_to_no_line() {
    let marked = gzip(b"\xef\xbb\xbfzipped\n");
    let folder = folder(&[
        ("a", b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n"),
        ("b", b"\xef\xbb\xbf"),
        ("c", b"\xef\xbb\xbf\n"),
        ("d", b"\xef\xbb"),
        ("e.gz", &marked),
        ("f", b"3"),
    ]);
    let spec = spec(&folder, SourceSpec::Lines, &["*"]);
    let roots = roots(&folder, &spec);
    // Only at the very start it is a mark.
    assert_eq!(roots[..3], ok(&["1", "\u{feff}2", ""]));
    assert!(roots[3].as_ref().expect_err("half a mark").contains("d:1: "), "{roots:?}");
    assert_eq!(roots[4..], ok(&["zipped", "3"]));
}

#[test]
fn text_of_two_bytes_a_character_is_one_error_that_says_so() {
    let zipped = gzip(b"\xff\xfe1\0\n\0");
    let folder =
        folder(&[("a", b"\xff\xfe1\0\n\x002\0\n\0"), ("b", b"\xfe\xff\x001\0\n"), ("c", &zipped)]);
    let spec = spec(&folder, SourceSpec::Lines, &["*"]);
    let roots = roots(&folder, &spec);
    assert_eq!(roots.len(), 3, "{roots:?}");
    for (root, name) in roots.iter().zip(["a:1: ", "b:1: ", "c:1: "]) {
        let error = root.as_ref().expect_err("no UTF-8");
        assert!(error.starts_with(name) && error.contains("UTF-16"), "{error}");
        assert!(error.contains("iconv"), "{error}");
    }
}

#[test]
fn zeros_behind_a_gzip_member_are_padding_and_anything_else_is_told() {
    let member = gzip(b"one\n");
    let with = |more: &[u8]| [&member[..], more].concat();
    let next = [&[0; 512][..], &gzip(b"two\n")].concat();
    let folder = folder(&[
        ("a", &with(&[0; 100_000])),
        ("b", &with(&next)),
        ("c", &with(b"rubbish")),
        ("d", &with(b"\0\0rubbish that is long enough")),
        ("e", &member[..member.len() - 3]),
        ("f", &with(&member[..5])),
    ]);
    let spec = spec(&folder, SourceSpec::Lines, &["*"]);
    let roots = roots(&folder, &spec);
    assert_eq!(roots[..4], ok(&["one", "one", "two", "one"]), "{roots:?}");
    let errors: Vec<&String> = roots.iter().filter_map(|root| root.as_ref().err()).collect();
    assert_eq!(errors.len(), 4, "{roots:?}");
    for (error, name) in errors.iter().zip(["c:2: ", "d:2: ", "e:", "f:2: "]) {
        assert!(error.starts_with(name) && error.contains("is missing"), "{error}");
    }
    for error in &errors[..2] {
        assert!(error.contains("neither gzip nor zeros"), "{error}");
    }
}

#[test]
fn a_bad_line_is_an_error_root_and_the_rest_goes_on() {
    let mut long = vec![b'x'; MAX_LINE_BYTES + 1];
    long.extend_from_slice(b"\nafter\n");
    let fits = vec![b'y'; MAX_LINE_BYTES];
    let broken = &gzip(&[b"first\n".repeat(10_000), b"last".to_vec()].concat())[..60];
    let folder =
        folder(&[("a", b"good\nb\xe9d\nbetter\n"), ("b", &long), ("c", &fits), ("d", broken)]);
    let spec = spec(&folder, SourceSpec::Lines, &["?"]);
    let roots = roots(&folder, &spec);
    assert_eq!(roots[0], Ok("good".to_owned()));
    let error = "a:2: this line is not UTF-8 text, from its byte 2 on";
    assert_eq!(roots[1], Err(error.to_owned()));
    assert_eq!(roots[2], Ok("better".to_owned()));
    assert_eq!(roots[3], Err("b:1: this line is longer than 16 MiB".to_owned()));
    assert_eq!(roots[4], Ok("after".to_owned()));
    assert_eq!(roots[5].as_ref().map(String::len), Ok(MAX_LINE_BYTES));
    let error = roots.last().expect("a root").as_ref().expect_err("breaks off");
    assert!(error.starts_with("d:") && error.contains("the rest"), "{error}");
}

#[test]
fn paths_are_sorted_without_folders_and_hidden_files() {
    let names: &[(&str, &[u8])] = &[
        ("b/x.html", b""),
        ("a/y.html", b""),
        ("a/deep/z.html", b""),
        ("a/.hid/w.html", b""),
        ("a/folder.html/v", b""),
    ];
    let folder = folder(names);
    let spec = spec(&folder, SourceSpec::Files, &["b/*.html", "**/*.html"]);
    let all = Inputs::resolve(&spec).expect("resolves").start().expect("starts");
    let counts = all.counts();
    let paths: Vec<Root> = futures_executor(all.collect());
    let ends: Vec<&str> = paths
        .iter()
        .map(|path| &path.as_deref().expect("a path")[folder.path().as_os_str().len()..])
        .collect();
    assert_eq!(ends, ["/a/deep/z.html", "/a/y.html", "/b/x.html"]);
    assert_eq!((counts.files(), counts.files_done(), counts.roots()), (3, 3, 3));
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_name_that_is_no_text_is_an_error_root() {
    use std::os::unix::ffi::OsStrExt as _;

    let folder = folder(&[("a", b"")]);
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"b\xe9")), "").expect("written");
    let roots = roots(&folder, &spec(&folder, SourceSpec::Files, &["*"]));
    assert_eq!(roots[0], Ok("a".to_owned()));
    assert!(roots[1].as_ref().expect_err("no text").contains("not UTF-8"), "{roots:?}");
}

#[test]
fn an_input_that_is_not_there_stops_the_job_before_it_starts() {
    let folder = folder(&[("a.txt", b"")]);
    let fails = |globs: &[&str]| {
        let spec = spec(&folder, SourceSpec::Lines, globs);
        Inputs::resolve(&spec).expect_err("fails").to_string()
    };
    let here = std::env::current_dir().expect("a folder").display().to_string();
    let error = fails(&["a.txt", "*.csv"]);
    assert!(error.contains("no file matches") && error.contains("/*.csv"), "{error}");
    assert!(error.contains(&here), "{error}");
    let error = fails(&["b.txt"]);
    assert!(error.contains("there is no file") && error.contains("b.txt"), "{error}");
    let error = fails(&[""]);
    assert!(error.contains("is a folder") && error.contains("/*"), "{error}");
    let error = fails(&["[a"]);
    assert!(error.contains("no valid glob"), "{error}");
    let tilde = SourceSpec::Files(vec!["~/*.nothing".to_owned()]);
    let error = Inputs::resolve(&tilde).expect_err("fails").to_string();
    assert!(error.contains("${HOME}"), "{error}");
}

#[test]
fn nobody_listening_ends_the_thread_and_a_slow_listener_slows_it() {
    let folder = folder(&[("a", &b"line\n".repeat(1_000_000))]);
    let spec = spec(&folder, SourceSpec::Lines, &["a"]);
    let mut roots = Inputs::resolve(&spec).expect("resolves").start().expect("starts");
    let counts = roots.counts();
    futures_executor(roots.next());
    // The thread holds a share of the counts until it ends.
    drop(roots);
    while Arc::strong_count(&counts) > 1 {
        std::thread::yield_now();
    }
    assert!(counts.roots() < 100_000, "{}", counts.roots());
}

#[test]
fn a_line_is_handed_over_before_the_next_read_waits() {
    /// A reader that gives one chunk, and on the next read asks whether the line has arrived.
    struct Typing(Option<&'static [u8]>, &'static str, mpsc::Receiver<Vec<Root>>);
    impl io::Read for Typing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.take() {
                Some(chunk) => {
                    buffer[..chunk.len()].copy_from_slice(chunk);
                    Ok(chunk.len())
                }
                None => {
                    assert_eq!(self.2.try_recv().expect("a batch"), ok(&[self.1]));
                    Ok(0)
                }
            }
        }
    }
    for (typed, line) in [(&b"typed\n"[..], "typed"), (b"\n", ""), (b"\xef\xbb\xbf\n", "")] {
        let (batches, receiver) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        let mut out = Out { batches, batch: Vec::new(), bytes: 0, counts };
        let input = io::BufReader::new(Typing(Some(typed), line, receiver));
        lines::read("typing", input, &mut out).expect("somebody listens");
    }
}
