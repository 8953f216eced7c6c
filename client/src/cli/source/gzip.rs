//! Compressed inputs: gzip members one behind the other, and what may stand behind them.
//!
//! Tapes and some tools pad what they write with zeros, to whole blocks: those are skipped behind a
//! member. Anything else there that is no member is an error, as is a member that breaks off.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// What a member begins with.
pub(super) const MAGIC: &[u8] = b"\x1f\x8b";

/// The text of all members.
pub(super) struct Members<R> {
    /// None behind the last.
    member: Option<GzDecoder<R>>,
    /// Whether it is one behind others, of which nothing has been read.
    is_next: bool,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)), is_next: false }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(bytes).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput if self.is_next => rubbish(),
                _ => error,
            })?;
            if read > 0 || bytes.is_empty() {
                self.is_next = false;
                return Ok(read);
            }
            match skip_zeros(member.get_mut())? {
                None => self.member = None,
                Some(first) if first == MAGIC[0] => {
                    self.is_next = true;
                    let ended = self.member.take();
                    self.member = ended.map(|ended| GzDecoder::new(ended.into_inner()));
                }
                Some(_) => return Err(rubbish()),
            }
        }
        Ok(0)
    }
}

fn rubbish() -> io::Error {
    let why = "what stands behind the compressed text is neither gzip nor zeros";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Skips zeros, and answers what comes then.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let zeros = chunk.iter().take_while(|byte| **byte == 0).count();
        let (is_end, next) = (chunk.is_empty(), chunk.get(zeros).copied());
        input.consume(zeros);
        if is_end || next.is_some() {
            return Ok(next);
        }
    }
}
