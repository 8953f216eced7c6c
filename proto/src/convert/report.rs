//! What a process says of its tasks.

use std::collections::BTreeMap;

use stageline_protocol::control::{Report, SourceReport, TaskEnd, TaskReport, TaskStats};
use stageline_protocol::{JobId, Term};

use super::ids::{decode_channels, decode_roots, encode_channels, encode_roots};
use super::{DecodeError, Wire, WireEnum, encode_list, list, optional, required};
use crate::v1;
use crate::v1::task_end::End;

impl Wire for Report {
    type Proto = v1::Report;

    fn encode(&self) -> v1::Report {
        v1::Report {
            job: self.job.0,
            tasks: encode_list(&self.tasks),
            revision: self.revision,
            term: self.term.0,
        }
    }

    fn decode(p: v1::Report) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            term: Term(p.term),
            revision: p.revision,
            tasks: list(p.tasks, "tasks")?,
        })
    }
}

impl Wire for TaskReport {
    type Proto = v1::TaskReport;

    fn encode(&self) -> v1::TaskReport {
        v1::TaskReport {
            id: Some(self.id.encode()),
            ended: self.ended.as_ref().map(Wire::encode),
            stats: Some(self.stats.encode()),
            source: self.source.as_ref().map(Wire::encode),
            cut: encode_channels(&self.cut),
            over_budget: self.over_budget,
            oldest: encode_roots(&self.oldest),
            marked: encode_list(&self.marked),
            reached: self.reached,
            unreached: encode_channels(&self.unreached),
        }
    }

    fn decode(p: v1::TaskReport) -> Result<Self, DecodeError> {
        Ok(Self {
            id: required(p.id, "id")?,
            ended: optional(p.ended, "ended")?,
            stats: required(p.stats, "stats")?,
            source: optional(p.source, "source")?,
            cut: decode_channels(p.cut),
            over_budget: p.over_budget,
            oldest: decode_roots(p.oldest),
            marked: list(p.marked, "marked")?,
            reached: p.reached,
            unreached: decode_channels(p.unreached),
        })
    }
}

impl Wire for TaskEnd {
    type Proto = v1::TaskEnd;

    fn encode(&self) -> v1::TaskEnd {
        let end = match self {
            Self::Stopped => End::Stopped(v1::Empty {}),
            Self::LostLinks => End::LostLinks(v1::Empty {}),
            Self::Failed(why) => End::Failed(why.clone()),
        };
        v1::TaskEnd { end: Some(end) }
    }

    fn decode(p: v1::TaskEnd) -> Result<Self, DecodeError> {
        Ok(match p.end.ok_or_else(|| DecodeError::missing("end"))? {
            End::Stopped(_) => Self::Stopped,
            End::LostLinks(_) => Self::LostLinks,
            End::Failed(why) => Self::Failed(why),
        })
    }
}

impl Wire for SourceReport {
    type Proto = v1::SourceReport;

    fn encode(&self) -> v1::SourceReport {
        v1::SourceReport { watermark: self.watermark, exhausted: self.exhausted, full: self.full }
    }

    fn decode(p: v1::SourceReport) -> Result<Self, DecodeError> {
        Ok(Self { watermark: p.watermark, exhausted: p.exhausted, full: p.full })
    }
}

impl Wire for TaskStats {
    type Proto = v1::TaskStats;

    fn encode(&self) -> v1::TaskStats {
        v1::TaskStats {
            received: self.received,
            started: self.started,
            sent: self.sent,
            filtered: self.filtered,
            errors: self
                .errors
                .iter()
                .map(|(kind, &count)| v1::ErrorCount { kind: kind.number(), count })
                .collect(),
            retries: self.retries,
            resent: self.resent,
            duplicates: self.duplicates,
            divergent: self.divergent,
            stale: self.stale,
            cut: self.cut,
            busy: self.busy,
            queued: self.queued,
            waiting_for_credit: self.waiting_for_credit,
            unacked: self.unacked,
            retained_bytes: self.retained_bytes,
            links: self.links,
            frames: self.frames,
        }
    }

    fn decode(p: v1::TaskStats) -> Result<Self, DecodeError> {
        let mut errors = BTreeMap::new();
        for (i, entry) in p.errors.into_iter().enumerate() {
            let kind = WireEnum::from_number(entry.kind)
                .map_err(|e| e.at("kind").at_index("errors", i))?;
            if errors.insert(kind, entry.count).is_some() {
                return Err(DecodeError::invalid("errors", "has one kind twice"));
            }
        }
        Ok(Self {
            received: p.received,
            started: p.started,
            sent: p.sent,
            filtered: p.filtered,
            errors,
            retries: p.retries,
            resent: p.resent,
            duplicates: p.duplicates,
            divergent: p.divergent,
            stale: p.stale,
            cut: p.cut,
            busy: p.busy,
            queued: p.queued,
            waiting_for_credit: p.waiting_for_credit,
            unacked: p.unacked,
            retained_bytes: p.retained_bytes,
            links: p.links,
            frames: p.frames,
        })
    }
}
