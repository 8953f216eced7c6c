//! What the coordinator has heard to be finished never starts again with its leave, also after it was
//! started anew. (Of a named source, what counts is stored: another may take its place there.)

use std::collections::BTreeMap;

use stageline_coordinator::store::Record;
use stageline_protocol::StageId;
use stageline_protocol::control::{Down, Up};
use stageline_protocol::suspect::Verdict;

/// How far each source was, as the coordinator heard.
#[derive(Debug, Default)]
pub(in crate::sim) struct Finished {
    watermarks: BTreeMap<StageId, u64>,
}

impl Finished {
    /// The coordinator has stored something.
    pub(in crate::sim) fn put(&mut self, record: &Record) {
        if let Record::Position { stage, position, .. } = record {
            self.watermarks.insert(*stage, *position);
        }
    }

    /// The coordinator hears something of a source in the client.
    pub(in crate::sim) fn heard(&mut self, message: &Up) {
        let Up::Report(report) = message else { return };
        for task in &report.tasks {
            if let Some(source) = &task.source {
                let watermark = self.watermarks.entry(task.id.stage).or_default();
                *watermark = source.watermark.max(*watermark);
            }
        }
    }

    /// The coordinator says something.
    pub(in crate::sim) fn said(&self, message: &Down) -> Result<(), String> {
        let Down::Verdicts(said) = message else { return Ok(()) };
        let starts = |v: &Verdict| matches!(v, Verdict::Run | Verdict::Alone | Verdict::Start);
        for (lineage, verdict) in said.verdicts.iter().filter(|(_, verdict)| starts(verdict)) {
            let watermark = self.watermarks.get(&lineage.source).copied().unwrap_or(0);
            if lineage.root < watermark {
                return Err(format!("{lineage} is told {verdict:?}, and is finished"));
            }
        }
        Ok(())
    }
}
