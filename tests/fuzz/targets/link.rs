//! One task, and peers that do whatever they like: any sequence of calls and frames. After each the
//! invariants hold, the machine comes to rest, and what it keeps is bounded by what it granted.
//!
//! The op of the task's stage is the input's first choice; the rest is [`Op`]s. Numbers are small, so that
//! frames often make sense, or extreme.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use stageline_protocol::frame::{
    Accept, Ack, Close, CloseReason, Grant, Items, LinkPolicy, Open, Return, Role, Summary,
};
use stageline_protocol::item::{Body, Encoding, ErrorKind, ItemError};
use stageline_protocol::lineage::{Lineage, Step};
use stageline_protocol::pipeline::{Carries, Channel, Op as Operator, Pipeline, Site, Stage};
use stageline_protocol::ranges::{RangeSet, Settled};
use stageline_protocol::suspect::Verdict;
use stageline_protocol::task::{Dials, Effect, Finished, Limits, LinkKey, Plan, Task};
use stageline_protocol::{
    ChannelId, ConnId, Content, Epoch, Frame, JobId, Packed, Run, StageId, TaskId, Time,
    VersionRange,
};

/// The longest sequence of calls.
const MOST: usize = 400;
const JOB: JobId = JobId(1);

fuzz_target!(|data: &[u8]| {
    // It ends where the input does.
    let _out_of_bytes = run(&mut Unstructured::new(data));
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut bench = Bench::new(u)?;
    for _ in 0..MOST {
        if u.is_empty() {
            break;
        }
        bench.step(u)?;
        bench.settle();
    }
    Ok(())
}

struct Bench {
    task: Task,
    now: Time,
    runs: Vec<u64>,
    /// Inputs for which the process is being emptied.
    isolating: Vec<u64>,
    pull: u64,
    /// The newest connection of each link that either side has tried.
    conns: BTreeMap<LinkKey, ConnId>,
    ended: bool,
}

impl Bench {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        use Operator::{Filter, FlatMap, Map, Sink, Source, Terminal};
        let op = *u.choose(&[Map, Source, Terminal, FlatMap, Filter, Sink])?;
        let stage = |name: &str, op, site| Stage::new(name, op, site);
        let site = if u.arbitrary()? { Site::Client } else { Site::Fleet };
        let stages = vec![
            stage("above", if op == Source { Map } else { Source }, Site::Client),
            stage("it", op, site),
            stage("below", Terminal, Site::Client),
            stage("errors", Terminal, Site::Client),
        ];
        let channel = |from, to, carries, buffer| Channel {
            from: StageId(from),
            to: StageId(to),
            carries,
            buffer,
        };
        let buffer = u.arbitrary::<Option<u8>>()?.map(u32::from);
        let mut channels = Vec::new();
        if op != Source {
            channels.push(channel(0, 1, Carries::All, buffer));
        }
        if op == Sink {
            channels.push(channel(1, 3, Carries::Errors, None));
        } else if op != Terminal {
            channels.push(channel(1, 2, Carries::All, None));
            let carries = if u.arbitrary()? { Carries::All } else { Carries::Errors };
            channels.push(channel(1, 3, carries, None));
        }
        let pipeline = Pipeline { stages, channels, ..Pipeline::default() };
        let limits = Limits {
            window_bytes: 200,
            max_payload: 400,
            batch_items: 4,
            batch_bytes: 300,
            ..Limits::default()
        };
        let id = TaskId { stage: StageId(1), epoch: Epoch(5) };
        let task = Task::new(JOB, id, &pipeline, number(u)?, limits).expect("a stage");
        Ok(Self {
            task,
            now: Time::ZERO,
            runs: Vec::new(),
            isolating: Vec::new(),
            pull: 0,
            conns: BTreeMap::new(),
            ended: false,
        })
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let now = self.now;
        match u.int_in_range(0..=31)? {
            0..=2 => {
                let plan = plan(u)?;
                self.task.set_plan(now, &plan);
            }
            3..=6 => {
                let open = self.open(u)?;
                if let Ok((key, _)) = self.task.on_open(now, &open) {
                    self.conns.insert(key, open.conn);
                }
            }
            7..=16 => {
                let (key, conn) = self.link(u)?;
                let frame = frame(u)?;
                let _violation = self.task.on_frame(now, key, conn, frame);
            }
            17 => {
                let (key, conn) = self.link(u)?;
                self.task.on_down(now, key, conn);
            }
            18..=19 => {
                let by = *u.choose(&[0, 1, 5_000, 25_000, 150_000, 11_000_000, 25_000_000])?;
                self.now = self.now + Duration::from_micros(by);
                self.task.handle_timeout(self.now);
            }
            20 => {
                let input = self.input(u)?;
                let outputs = packed(u, 6)?;
                let inputs = input..input.saturating_add(outputs.len());
                self.runs.retain(|input| !inputs.contains(input));
                match u.int_in_range(0..=3)? {
                    0 => self.task.finish_all(now, inputs, u.arbitrary()?),
                    _ => self.task.finish_each(now, input, Encoding::Raw, &outputs),
                }
            }
            21..=24 => {
                let input = self.input(u)?;
                let finished = finished(u)?;
                self.task.finish(now, input, finished);
            }
            25 => {
                let input = self.input(u)?;
                if self.task.can_emit() {
                    self.task.emit(now, input, Encoding::Raw, payload(u)?);
                }
            }
            26 => {
                let input = self.input(u)?;
                self.task.release_slot(now, input);
                self.task.want_slot(now, input);
            }
            27..=28 => {
                let count = u.int_in_range(0..=self.pull.min(8))?;
                self.pull = 0;
                let (mut roots, mut left) = (Vec::new(), count);
                while left > 0 {
                    let root = content(u, left)?;
                    left -= root.len();
                    roots.push(root);
                }
                self.task.roots(now, roots, u.ratio(1, 8)?);
            }
            29 => self.task.heard(now),
            30 => {
                let (key, _) = self.link(u)?;
                if u.arbitrary()? { self.task.block(key) } else { self.task.unblock(key) }
            }
            _ => match u.int_in_range(0..=9)? {
                4..=8 => self.answer(u)?,
                9 => {
                    if let Some(input) = self.isolating.pop() {
                        self.task.isolated(now, input, u.arbitrary()?);
                    }
                }
                0 => self.task.drain(now),
                1 => self.task.cut_inputs(now),
                _ => {}
            },
        }
        Ok(())
    }

    /// Any answer for a marked item, asked for or not.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let marked = self.task.report(None).marked;
        if marked.is_empty() {
            return Ok(());
        }
        let item = u.choose(&marked)?;
        let verdict = match u.int_in_range(0..=4)? {
            0 => Verdict::Run,
            1 => Verdict::Alone,
            2 => Verdict::Start,
            3 => Verdict::Convicted(Vec::new()),
            _ => Verdict::Left,
        };
        self.task.verdict(self.now, &item.lineage, &verdict);
        Ok(())
    }

    /// Carries out what the machine wants. It must come to rest.
    fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 20_000, "it does not come to rest");
            if let Some(effect) = self.task.poll_effect() {
                match effect {
                    Effect::Start { input, run } => self.runs.extend(input..input + run.len()),
                    Effect::Resume { input } => self.runs.push(input),
                    Effect::Dial(key, open) => drop(self.conns.insert(key, open.conn)),
                    Effect::Pull { items, .. } => self.pull = items,
                    Effect::Abort => self.runs.clear(),
                    Effect::End(_) => self.ended = true,
                    Effect::Isolate { input, .. } => self.isolating.push(input),
                    Effect::Rejoin { input } => self.isolating.retain(|other| *other != input),
                    Effect::HangUp(..) | Effect::Report | Effect::Drop { .. } => {}
                }
            } else if self.task.poll_frame(self.now).is_none() {
                break;
            }
        }
        self.task.check_invariants().expect("an invariant");
        let report = self.task.report(None);
        assert!(report.oldest.len() <= 1 << 16 && report.stats.retained_bytes < 1 << 30);
    }

    /// Often an input that runs, sometimes any.
    fn input(&mut self, u: &mut Unstructured<'_>) -> Result<u64> {
        if self.runs.is_empty() || u.ratio(1, 16)? {
            return number(u);
        }
        let index = u.choose_index(self.runs.len())?;
        Ok(self.runs.swap_remove(index))
    }

    /// Often a link with its connection, sometimes any.
    fn link(&mut self, u: &mut Unstructured<'_>) -> Result<(LinkKey, ConnId)> {
        if self.conns.is_empty() || u.ratio(1, 16)? {
            let peer = peer(u)?;
            return Ok((LinkKey { channel: channel(u)?, peer }, conn(u, peer)?));
        }
        let index = u.choose_index(self.conns.len())?;
        let (key, conn) = self.conns.iter().nth(index).expect("an index of it");
        Ok((*key, *conn))
    }

    fn open(&self, u: &mut Unstructured<'_>) -> Result<Open> {
        let peer = peer(u)?;
        let own = TaskId { stage: StageId(1), epoch: Epoch(if u.ratio(1, 32)? { 4 } else { 5 }) };
        let role = if peer.stage.0 == 0 { Role::Sender } else { Role::Receiver };
        let role = match (u.ratio(1, 32)?, role) {
            (true, Role::Sender) => Role::Receiver,
            (true, Role::Receiver) => Role::Sender,
            (false, role) => role,
        };
        let (from, to) = if role == Role::Sender { (peer, own) } else { (own, peer) };
        let link = stageline_protocol::LinkId { job: JOB, channel: channel(u)?, from, to };
        Ok(Open {
            versions: VersionRange { oldest: 1, newest: u.int_in_range(0..=2)? },
            link,
            role,
            conn: conn(u, peer)?,
            resume: maybe(u, |u| conn(u, peer))?,
            summaries: some(u, 3, |u| summary(u, peer))?,
            policy: maybe(u, policy)?,
        })
    }
}

fn plan(u: &mut Unstructured<'_>) -> Result<Plan> {
    let peers =
        some(u, 6, |u| Ok((peer(u)?, if u.arbitrary()? { Dials::We } else { Dials::They })))?;
    Ok(Plan {
        slots: u.int_in_range(0..=4)?,
        peers: peers.into_iter().collect(),
        highest_epoch: Epoch(u.int_in_range(0..=9)?),
        window: number(u)?,
        pause: u.ratio(1, 8)?,
        cut: some(u, 2, |u| Ok(u.ratio(1, 8)?.then_some(channel(u)?)))?
            .into_iter()
            .flatten()
            .collect(),
        position: maybe(u, number)?,
        again: u.ratio(1, 8)?,
    })
}

fn frame(u: &mut Unstructured<'_>) -> Result<Frame> {
    Ok(match u.int_in_range(0..=15)? {
        0..=5 => Frame::Items(Items {
            batch: some(u, 4, run_of_items)?,
            backlog: number(u)?,
            forfeited: if u.ratio(1, 4)? { number(u)? } else { 0 },
            watermarks: some(u, 2, |u| Ok((StageId(u.int_in_range(0..=3)?), number(u)?)))?,
        }),
        6..=8 => Frame::Grant(Grant { items: number(u)?, bytes: number(u)?.saturating_mul(64) }),
        9..=10 => Frame::Ack(Ack { settled: settled(u)? }),
        11 => Frame::Return(Return { numbers: ranges(u)? }),
        12..=13 => {
            let peer = peer(u)?;
            Frame::Accept(Accept {
                version: 1,
                resume: maybe(u, |u| conn(u, peer))?,
                summary: maybe(u, |u| summary(u, peer))?,
                policy: maybe(u, policy)?,
            })
        }
        14 => {
            use CloseReason::{Cut, Done, NoSuchTask, Stale, Violation};
            let reason = *u.choose(&[NoSuchTask, Cut, Stale, Violation, Done])?;
            Frame::Close(Close { reason, message: String::new() })
        }
        _ => Frame::Grant(Grant { items: 3, bytes: 1_000 }),
    })
}

fn run_of_items(u: &mut Unstructured<'_>) -> Result<Run> {
    let steps = some(u, 3, |u| {
        let n = number(u)?;
        Ok(match u.int_in_range(0..=2)? {
            0 => Step::Output(n),
            1 => Step::Branch(n as u32),
            _ => Step::End(n),
        })
    })?;
    let steps = if u.arbitrary()? { steps } else { Vec::new() };
    let lineage = Lineage { source: StageId(0), root: number(u)?, steps };
    // As decoding has it: lineages follow each other.
    let most = lineage.place().map_or(1, |place| (u64::MAX - place).clamp(1, 6));
    Ok(Run { content: content(u, most)?, lineage, marked: u.ratio(1, 8)? })
}

fn body(u: &mut Unstructured<'_>) -> Result<Body> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Body::Error(failure()),
        1 => Body::End,
        _ => Body::Value(Encoding::Raw, payload(u)?),
    })
}

fn content(u: &mut Unstructured<'_>, most: u64) -> Result<Content> {
    Ok(match body(u)? {
        Body::Value(encoding, _) => Content::Values(encoding, packed(u, most)?),
        other => other.into(),
    })
}

fn packed(u: &mut Unstructured<'_>, most: u64) -> Result<Packed> {
    let mut ends = vec![payload(u)?.len() as u32];
    while (ends.len() as u64) < most && u.arbitrary()? {
        ends.push(ends[ends.len() - 1] + payload(u)?.len() as u32);
    }
    let blob = Bytes::from(vec![0; ends[ends.len() - 1] as usize]);
    Ok(Packed::cut(blob, ends).expect("ends that ascend to the blob's"))
}

fn payload(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let length = *u.choose(&[1, 1, 1, 60, 150, 399, 401])?;
    Ok(Bytes::from(vec![0; length]))
}

fn failure() -> Box<ItemError> {
    let (stage, message, worker) = ("it".into(), "no".into(), "w".into());
    Box::new(ItemError { stage, kind: ErrorKind::Failed, message, attempts: 1, worker })
}

fn finished(u: &mut Unstructured<'_>) -> Result<Finished> {
    Ok(match u.int_in_range(0..=6)? {
        0 => Finished::Keep,
        1 => Finished::Nothing,
        2 => Finished::Expanded,
        3 => Finished::Failed(failure()),
        _ => Finished::One(Encoding::Raw, payload(u)?),
    })
}

fn peer(u: &mut Unstructured<'_>) -> Result<TaskId> {
    Ok(TaskId {
        stage: StageId(*u.choose(&[0, 0, 2, 2, 3, 1])?),
        epoch: Epoch(u.int_in_range(3..=8)?),
    })
}

fn channel(u: &mut Unstructured<'_>) -> Result<ChannelId> {
    Ok(ChannelId(u.int_in_range(0..=2)?))
}

fn conn(u: &mut Unstructured<'_>, peer: TaskId) -> Result<ConnId> {
    let dialler = match u.int_in_range(0..=15)? {
        0 => Epoch(number(u)?),
        1..=4 => Epoch(5),
        _ => peer.epoch,
    };
    Ok(ConnId { dialler, number: number(u)? })
}

fn policy(u: &mut Unstructured<'_>) -> Result<LinkPolicy> {
    Ok(LinkPolicy { window_bytes: number(u)?.saturating_mul(64), max_payload: number(u)? })
}

fn summary(u: &mut Unstructured<'_>, peer: TaskId) -> Result<Summary> {
    Ok(Summary { conn: conn(u, peer)?, acked: settled(u)?, held: ranges(u)? })
}

fn settled(u: &mut Unstructured<'_>) -> Result<Settled> {
    Ok(Settled::from_parts(number(u)?, ranges(u)?.iter()))
}

fn ranges(u: &mut Unstructured<'_>) -> Result<RangeSet> {
    let ranges = some(u, 3, |u| {
        let (start, length) = (number(u)?, number(u)?);
        Ok(start..start.saturating_add(length))
    })?;
    Ok(ranges.into_iter().collect())
}

/// Mostly small.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    let byte = u.arbitrary::<u8>()?;
    Ok(match byte {
        255 => u64::MAX,
        254 => u64::MAX - 1,
        253 => u64::MAX / 2 + 1,
        252 => u64::from(u32::MAX),
        251 => u.arbitrary()?,
        250 => u.arbitrary::<u16>()?.into(),
        byte => u64::from(byte % 12),
    })
}

fn maybe<T>(
    u: &mut Unstructured<'_>,
    f: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if u.arbitrary()? { f(u).map(Some) } else { Ok(None) }
}

fn some<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut f: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=most)?).map(|_| f(u)).collect()
}
