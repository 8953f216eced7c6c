//! The event log: always hashed, kept only on demand.

use std::fmt::{Arguments, Write};

use stageline_protocol::{Frame, Run, Time};

/// One line an event.
#[derive(Debug)]
pub(super) struct Log {
    hash: u64,
    lines: Option<Vec<String>>,
    line: String,
}

impl Log {
    pub(super) fn new(keep: bool) -> Self {
        // FNV-1a.
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(Vec::new), line: String::new() }
    }

    pub(super) fn note(&mut self, now: Time, what: Arguments<'_>) {
        self.line.clear();
        let at = now.as_micros();
        // Writing into a String does not fail.
        let _ = write!(self.line, "{:>4}.{:06} ", at / 1_000_000, at % 1_000_000);
        let _ = self.line.write_fmt(what);
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub(super) fn finish(self) -> (u64, Vec<String>) {
        (self.hash, self.lines.unwrap_or_default())
    }
}

/// A frame in a few characters.
pub(super) struct Short<'a>(pub(super) &'a Frame);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Frame::Open(open) => write!(f, "Open {} resume {:?}", open.conn, open.resume),
            Frame::Accept(accept) => {
                write!(f, "Accept resume {:?} summary ", accept.resume)?;
                match &accept.summary {
                    None => f.write_str("none"),
                    Some(summary) => {
                        let held: Vec<_> = summary.held.iter().collect();
                        write!(f, "{} acked ", summary.conn)?;
                        settled(f, &summary.acked)?;
                        write!(f, " held {held:?}")
                    }
                }
            }
            Frame::Items(items) => {
                f.write_str("Items")?;
                for item in items.batch.iter().flat_map(Run::items) {
                    write!(f, " {}{}", item.lineage, if item.is_error() { "!" } else { "" })?;
                }
                write!(f, " backlog {} forfeited {}", items.backlog, items.forfeited)?;
                for (_, watermark) in &items.watermarks {
                    write!(f, " watermark {watermark}")?;
                }
                Ok(())
            }
            Frame::Grant(grant) => write!(f, "Grant {} items {} bytes", grant.items, grant.bytes),
            Frame::Ack(ack) => {
                f.write_str("Ack ")?;
                settled(f, &ack.settled)
            }
            Frame::Return(returned) => {
                write!(f, "Return {:?}", returned.numbers.iter().collect::<Vec<_>>())
            }
            Frame::Close(close) => write!(f, "Close {:?} {}", close.reason, close.message),
        }
    }
}

fn settled(
    f: &mut std::fmt::Formatter<'_>,
    settled: &stageline_protocol::ranges::Settled,
) -> std::fmt::Result {
    write!(f, "<{}", settled.prefix())?;
    for range in settled.above().iter() {
        write!(f, " {}..{}", range.start, range.end)?;
    }
    Ok(())
}
