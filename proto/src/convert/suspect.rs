//! Marked items: what tasks say of them, and what the coordinator answers.

use stageline_protocol::suspect::{Death, MarkState, MarkedItem, Verdict, Verdicts};
use stageline_protocol::{Incarnation, JobId, Lineage, StageId, Term};

use super::items::{decode_steps, encode_steps};
use super::{DecodeError, Wire, WireEnum, encode_list, enumerated, list, required, wire_enum};
use crate::v1;
use crate::v1::verdict::Verdict as Answer;

wire_enum!(MarkState = MarkState {
    Asking = Asking,
    Holding = Holding,
    Crowded = Crowded,
    Running = Running,
    Alone = Alone,
    Away = Away,
    Done = Done,
});

impl Wire for Lineage {
    type Proto = v1::Lineage;

    fn encode(&self) -> v1::Lineage {
        let steps = encode_steps(&self.steps).collect();
        v1::Lineage { source: self.source.0, root: self.root, steps }
    }

    fn decode(p: v1::Lineage) -> Result<Self, DecodeError> {
        let steps = decode_steps(&p.steps)?;
        Ok(Self { source: StageId(p.source), root: p.root, steps })
    }
}

impl Wire for MarkedItem {
    type Proto = v1::MarkedItem;

    fn encode(&self) -> v1::MarkedItem {
        v1::MarkedItem { lineage: Some(self.lineage.encode()), state: self.state.number() }
    }

    fn decode(p: v1::MarkedItem) -> Result<Self, DecodeError> {
        Ok(Self { lineage: required(p.lineage, "lineage")?, state: enumerated(p.state, "state")? })
    }
}

impl Wire for Verdicts {
    type Proto = v1::Verdicts;

    fn encode(&self) -> v1::Verdicts {
        v1::Verdicts {
            job: self.job.0,
            term: self.term.0,
            task: Some(self.task.encode()),
            verdicts: encode_list(&self.verdicts),
        }
    }

    fn decode(p: v1::Verdicts) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(p.job),
            term: Term(p.term),
            task: required(p.task, "task")?,
            verdicts: list(p.verdicts, "verdicts")?,
        })
    }
}

impl Wire for (Lineage, Verdict) {
    type Proto = v1::Verdict;

    fn encode(&self) -> v1::Verdict {
        let answer = match &self.1 {
            Verdict::Run => Answer::Run(v1::Empty {}),
            Verdict::Alone => Answer::Alone(v1::Empty {}),
            Verdict::Start => Answer::Start(v1::Empty {}),
            Verdict::Convicted(deaths) => {
                Answer::Convicted(v1::Convicted { deaths: encode_list(deaths) })
            }
            Verdict::Finished => Answer::Finished(v1::Empty {}),
            Verdict::Left => Answer::Left(v1::Empty {}),
        };
        v1::Verdict { lineage: Some(self.0.encode()), verdict: Some(answer) }
    }

    fn decode(p: v1::Verdict) -> Result<Self, DecodeError> {
        let verdict = match p.verdict.ok_or_else(|| DecodeError::missing("verdict"))? {
            Answer::Run(_) => Verdict::Run,
            Answer::Alone(_) => Verdict::Alone,
            Answer::Start(_) => Verdict::Start,
            Answer::Convicted(c) => {
                Verdict::Convicted(list(c.deaths, "deaths").map_err(|e| e.at("convicted"))?)
            }
            Answer::Finished(_) => Verdict::Finished,
            Answer::Left(_) => Verdict::Left,
        };
        Ok((required(p.lineage, "lineage")?, verdict))
    }
}

impl Wire for Death {
    type Proto = v1::Death;

    fn encode(&self) -> v1::Death {
        v1::Death { worker: self.worker.clone(), process: self.process.0, alone: self.alone }
    }

    fn decode(p: v1::Death) -> Result<Self, DecodeError> {
        Ok(Self { worker: p.worker, process: Incarnation(p.process), alone: p.alone })
    }
}
