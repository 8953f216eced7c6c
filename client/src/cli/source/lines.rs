//! The lines of one input, compressed or not.

use std::io::{self, BufRead, Read};
use std::sync::atomic::Ordering;

use super::{Gone, Out, gzip};

/// A longer line is an error root, and is skipped.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Reads an input to its end. It is taken as gzip, of one member or several, if it begins as such. A
/// line ends with `\n` or `\r\n`, neither of which belongs to it; nor does a byte order mark before the
/// first.
pub(super) fn read(name: &str, input: impl BufRead, out: &mut Out) -> Result<(), Gone> {
    let input = Begun::read(input, &[gzip::MAGIC, UTF_8, UTF_16[0], UTF_16[1]]);
    match input {
        Err(error) => out.push(Err(broken(name, 1, &error))),
        Ok(input) if input.start() == gzip::MAGIC => {
            let text = gzip::Members::new(input.whole());
            match Begun::read(
                io::BufReader::with_capacity(64 << 10, text),
                &[UTF_8, UTF_16[0], UTF_16[1]],
            ) {
                Ok(text) => marked(name, text, out),
                Err(error) => out.push(Err(broken(name, 1, &error))),
            }
        }
        Ok(input) => marked(name, input, out),
    }
}

/// Reads text that may begin with a byte order mark.
fn marked(name: &str, text: Begun<impl BufRead>, out: &mut Out) -> Result<(), Gone> {
    if UTF_16.contains(&text.start()) {
        return out.push(Err(format!(
            "{name}:1: this input is not UTF-8 text but UTF-16, as its byte order mark says: convert it \
             first, with `iconv -f UTF-16 -t UTF-8` for example"
        )));
    }
    if text.start() == UTF_8 { lines(name, text.rest, out) } else { lines(name, text.whole(), out) }
}

const UTF_8: &[u8] = b"\xef\xbb\xbf";
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
const LONGEST_MARK: usize = 3;

/// An input whose first bytes have been looked at.
struct Begun<R> {
    start: [u8; LONGEST_MARK],
    got: usize,
    rest: R,
}

impl<R: BufRead> Begun<R> {
    /// Reads only as far as one of these marks goes on: the next byte may be long in coming.
    fn read(mut rest: R, marks: &[&[u8]]) -> io::Result<Self> {
        let (mut start, mut got) = ([0; LONGEST_MARK], 0);
        while marks.iter().any(|mark| mark.len() > got && mark.starts_with(&start[..got])) {
            match rest.read(&mut start[got..=got]) {
                Ok(0) => break,
                Ok(_) => got += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { start, got, rest })
    }

    fn start(&self) -> &[u8] {
        &self.start[..self.got]
    }

    fn whole(self) -> impl BufRead {
        io::Cursor::new(self.start).take(self.got as u64).chain(self.rest)
    }
}

fn broken(name: &str, line: u64, error: &io::Error) -> String {
    format!("{name}:{line}: cannot read on from here: {error}; the rest of this input is missing")
}

fn lines(name: &str, mut input: impl BufRead, out: &mut Out) -> Result<(), Gone> {
    let mut line = Vec::new();
    let mut number = 0_u64;
    let mut dry = true;
    loop {
        number += 1;
        line.clear();
        let read = match read_line(&mut input, &mut line, &mut dry, out) {
            Ok(read) => read,
            Err(Failure::Gone) => return Err(Gone),
            Err(Failure::Io(error)) => return out.push(Err(broken(name, number, &error))),
        };
        match read {
            Line::None => return Ok(()),
            Line::TooLong => out.push(Err(format!(
                "{name}:{number}: this line is longer than {} MiB",
                MAX_LINE_BYTES >> 20
            )))?,
            Line::Some => {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                out.push(String::from_utf8(std::mem::take(&mut line)).map_err(|error| {
                    let column = error.utf8_error().valid_up_to() + 1;
                    format!(
                        "{name}:{number}: this line is not UTF-8 text, from its byte {column} on"
                    )
                }))?;
            }
        }
    }
}

enum Line {
    Some,
    TooLong,
    None,
}

enum Failure {
    Io(io::Error),
    Gone,
}

/// Reads a line into `line`, without its `\n`. Of a line that is too long, nothing is kept. `dry`
/// says whether the buffer is used up: the next read may wait long, so all roots are handed over.
fn read_line(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    dry: &mut bool,
    out: &mut Out,
) -> Result<Line, Failure> {
    let mut too_long = false;
    let mut any = false;
    loop {
        if *dry {
            out.flush().map_err(|Gone| Failure::Gone)?;
        }
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Io(error)),
        };
        if chunk.is_empty() {
            return Ok(match (too_long, any) {
                (true, _) => Line::TooLong,
                (_, true) => Line::Some,
                _ => Line::None,
            });
        }
        any = true;
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..newline.unwrap_or(chunk.len())];
        if too_long || line.len() + part.len() > MAX_LINE_BYTES {
            too_long = true;
            *line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(newline.is_some());
        *dry = used == chunk.len();
        input.consume(used);
        out.counts.bytes.fetch_add(used as u64, Ordering::Relaxed);
        if newline.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Some });
        }
    }
}
