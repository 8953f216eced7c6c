//! Names of things, each a type of its own.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number! {
    /// A stage of a pipeline, by its place in the list of stages.
    StageId(u32), "stage "
}
number! {
    /// A channel of a pipeline, by its place in the list of channels.
    ChannelId(u32), "channel "
}
number! {
    /// One life of a task. A job numbers the lives of all its tasks from one counter, and stores
    /// the counter before it announces a new life: a higher epoch is always the later life.
    Epoch(u64), "epoch "
}
number! {
    /// One life of the coordinator; directives carry it, and an older one is refused.
    Term(u64), "term "
}

/// One run of a pipeline. The client draws it at random, so that submitting twice is harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(s: &str) -> Result<Self, InvalidJobId> {
        let plain = s.len() <= 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(s, 16) {
            Ok(id) if plain => Ok(Self(id)),
            _ => Err(InvalidJobId(s.to_owned())),
        }
    }
}

/// A text that is not a job's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a job: a job is named by up to 16 hexadecimal digits, as `stageline jobs` lists them"
)]
pub struct InvalidJobId(String);

/// One life of a process, drawn at random when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One stage of one job on one worker, for one life. The epoch alone is unique within a job; the
/// stage is carried along because nearly everybody who names a task needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The stage that the task runs.
    pub stage: StageId,
    /// Which life of a task of this job it is.
    pub epoch: Epoch,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stage.0, self.epoch.0)
    }
}

/// One channel between one upstream and one downstream task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// The job.
    pub job: JobId,
    /// The channel that the link carries a part of.
    pub channel: ChannelId,
    /// The task that sends items.
    pub from: TaskId,
    /// The task that receives them.
    pub to: TaskId,
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {} → {}", self.job, self.channel.0, self.from, self.to)
    }
}

/// One connection of a link: an incarnation of it. A newer one supersedes an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The epoch of the task that dialled.
    pub dialler: Epoch,
    /// That task's count of its dials of this link, from 1.
    pub number: u64,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dialler.0, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_reads_back_as_it_was_printed() {
        for id in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(JobId(id).to_string().parse(), Ok(JobId(id)));
        }
        for bad in ["", "xyz", "+1", "11112222333344445"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?}");
        }
    }
}
