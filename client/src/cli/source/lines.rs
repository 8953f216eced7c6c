//! The lines of one input, compressed or not.

use std::io::{self, BufRead, Read};
use std::sync::atomic::Ordering;

use flate2::bufread::MultiGzDecoder;

use super::{Gone, Out};

/// A longer line is an error root, and is skipped.
pub const MAX_LINE_BYTES: usize = 16 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads an input to its end. It is taken as gzip, of one member or several, if it begins as such.
/// A line ends with `\n` or `\r\n`, neither of which belongs to it.
pub(super) fn read(name: &str, mut input: impl BufRead, out: &mut Out) -> Result<(), Gone> {
    // Two bytes decide; an input hands out its first bytes together unless somebody types them.
    let mut start = [0; 2];
    let mut got = 0;
    while got < start.len() {
        match input.read(&mut start[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return out.push(Err(broken(name, 1, &error))),
        }
    }
    let gzip = start[..got] == GZIP_MAGIC;
    let whole = io::Cursor::new(start).take(got as u64).chain(input);
    if gzip {
        lines(name, io::BufReader::with_capacity(64 << 10, MultiGzDecoder::new(whole)), out)
    } else {
        lines(name, whole, out)
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
