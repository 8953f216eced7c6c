//! Any value of the pure protocol, with the corners in it: empty batches, empty contents, batches
//! that are alike in a column and batches that are not, numbers at the ends of their ranges.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use stageline_protocol::control::*;
use stageline_protocol::frame::*;
use stageline_protocol::pipeline::*;
use stageline_protocol::ranges::{RangeSet, Settled};
use stageline_protocol::suspect::{Death, MarkState, MarkedItem, Verdict, Verdicts};
use stageline_protocol::*;

/// Small, large and largest numbers: varints of every length.
pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, any::<u32>().prop_map(u64::from), any::<u64>(), Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, any::<u32>()]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé ]{0,8}"
}

fn duration() -> impl Strategy<Value = Duration> {
    number().prop_map(Duration::from_micros)
}

fn stage_id() -> impl Strategy<Value = StageId> {
    small().prop_map(StageId)
}

fn channels() -> impl Strategy<Value = Vec<ChannelId>> {
    vec(small().prop_map(ChannelId), 0..3)
}

fn roots() -> impl Strategy<Value = Vec<(StageId, u64)>> {
    vec((stage_id(), number()), 0..3)
}

fn task_id() -> impl Strategy<Value = TaskId> {
    (stage_id(), number()).prop_map(|(stage, epoch)| TaskId { stage, epoch: Epoch(epoch) })
}

fn versions() -> impl Strategy<Value = VersionRange> {
    (small(), small()).prop_map(|(a, b)| VersionRange { oldest: a.min(b), newest: a.max(b) })
}

fn type_tag() -> impl Strategy<Value = TypeTag> {
    (text(), small()).prop_map(|(name, version)| TypeTag { name, version })
}

// Items.

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        number().prop_map(Step::Output),
        small().prop_map(Step::Branch),
        number().prop_map(Step::End)
    ]
}

fn item_error() -> impl Strategy<Value = ItemError> {
    (text(), prop::sample::select(&ErrorKind::ALL[..]), text(), small(), text()).prop_map(
        |(stage, kind, message, attempts, worker)| ItemError {
            stage,
            kind,
            message,
            attempts,
            worker,
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let encoding = prop::sample::select(vec![Encoding::MessagePack, Encoding::Raw]);
    prop_oneof![
        4 => (encoding, vec(any::<u8>(), 0..20)).prop_map(|(e, b)| Body::Value(e, b.into())),
        1 => item_error().prop_map(|e| Body::Error(Box::new(e))),
        1 => Just(Body::End),
    ]
}

/// Nothing alike.
fn mixed_batch() -> impl Strategy<Value = Vec<Item>> {
    let item = (lineage(), body(), any::<bool>());
    vec(item.prop_map(|(lineage, body, marked)| Item { lineage, body, marked }), 0..12)
}

/// Alike in all but the root, or an output's number, as a source or an expansion sends it.
fn even_batch() -> impl Strategy<Value = Vec<Item>> {
    let steps = prop_oneof![Just(vec![]), vec(step(), 0..3)];
    (
        0..40_usize,
        stage_id(),
        number(),
        prop_oneof![Just(1), 0..3_u64, number()],
        steps,
        (body(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|(count, source, first, delta, steps, (body, marked, expanded))| {
            let mut number = first;
            let mut next = || {
                let this = number;
                number = number.wrapping_add(delta);
                this
            };
            let mut lineage = || match expanded {
                true => {
                    Lineage { source, root: 7, steps: steps.clone() }.with(Step::Output(next()))
                }
                false => Lineage { source, root: next(), steps: steps.clone() },
            };
            (0..count).map(|_| Item { lineage: lineage(), body: body.clone(), marked }).collect()
        })
}

/// Payloads of one length, written as such or not, or of several.
fn packed() -> impl Strategy<Value = Packed> {
    let alike = (0..4_u64, 1..9_u64).prop_map(|(length, count)| {
        let blob = Bytes::from(vec![7; (length * count) as usize]);
        Packed::alike(blob, length, count).unwrap()
    });
    let cut = vec(vec(any::<u8>(), 0..3), 1..9).prop_map(|payloads| {
        let ends = payloads.iter().scan(0, |end, payload| {
            *end += payload.len() as u32;
            Some(*end)
        });
        Packed::cut(payloads.concat().into(), ends.collect()).unwrap()
    });
    let part = |values: Packed, a: prop::sample::Index, b: prop::sample::Index| {
        let start = a.index(values.len() as usize) as u64;
        values.slice(start..start + 1 + b.index((values.len() - start) as usize) as u64)
    };
    let at = any::<prop::sample::Index>;
    (prop_oneof![alike, cut], at(), at()).prop_map(move |(values, a, b)| part(values, a, b))
}

/// Several items, if they can be.
pub(super) fn run() -> impl Strategy<Value = Run> {
    let encoding = prop::sample::select(vec![Encoding::MessagePack, Encoding::Raw]);
    let values =
        (encoding, packed()).prop_map(|(encoding, values)| Content::Values(encoding, values));
    let content = prop_oneof![4 => values, 1 => body().prop_map(Content::from)];
    (lineage(), content, any::<bool>()).prop_map(|(lineage, content, marked)| {
        // No lineage follows an end, nor the largest number.
        let room = lineage.place().map_or(1, |place| (u64::MAX - place).saturating_add(1));
        Run { content: content.slice(0..content.len().min(room)), lineage, marked }
    })
}

/// Runs of any length, some of which go on where the one before ends.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    vec((run(), any::<bool>(), any::<bool>()), 0..8).prop_map(|runs| {
        let mut batch: Vec<Run> = Vec::new();
        for (mut run, goes_on, is_like) in runs {
            if let Some(before) = batch.last().filter(|_| goes_on) {
                let next = before.lineage.after(before.len());
                let fits = next.place().is_some_and(|place| place.checked_add(run.len()).is_some());
                if fits {
                    run.lineage = next;
                }
                if let (Content::Values(own, _), Content::Values(encoding, _), true) =
                    (&mut run.content, &before.content, is_like)
                {
                    (*own, run.marked) = (*encoding, before.marked);
                }
            }
            batch.push(run);
        }
        batch
    })
}

pub(super) fn items() -> impl Strategy<Value = Items> {
    let single = prop_oneof![mixed_batch(), even_batch()];
    let single = single.prop_map(|items| items.into_iter().map(Run::from).collect());
    (prop_oneof![single, runs()], number(), number(), roots()).prop_map(
        |(batch, backlog, forfeited, watermarks)| Items { batch, backlog, forfeited, watermarks },
    )
}

// Frames.

fn range_set() -> impl Strategy<Value = RangeSet> {
    vec((number(), 1..9_u64), 0..6)
        .prop_map(|ranges| ranges.into_iter().map(|(s, n)| s..s.saturating_add(n)).collect())
}

fn settled() -> impl Strategy<Value = Settled> {
    (number(), range_set()).prop_map(|(prefix, set)| Settled::from_parts(prefix, set.iter()))
}

fn conn() -> impl Strategy<Value = ConnId> {
    (number(), number()).prop_map(|(dialler, number)| ConnId { dialler: Epoch(dialler), number })
}

fn link_id() -> impl Strategy<Value = LinkId> {
    (any::<u64>(), small(), task_id(), task_id()).prop_map(|(job, channel, from, to)| LinkId {
        job: JobId(job),
        channel: ChannelId(channel),
        from,
        to,
    })
}

fn summary() -> impl Strategy<Value = Summary> {
    (conn(), settled(), range_set()).prop_map(|(conn, acked, held)| Summary { conn, acked, held })
}

fn policy() -> impl Strategy<Value = LinkPolicy> {
    (number(), number())
        .prop_map(|(window_bytes, max_payload)| LinkPolicy { window_bytes, max_payload })
}

fn open() -> impl Strategy<Value = Open> {
    let role = prop::sample::select(vec![Role::Sender, Role::Receiver]);
    let resume = option::of(conn());
    let summaries = vec(summary(), 0..3);
    (versions(), link_id(), role, conn(), resume, summaries, option::of(policy())).prop_map(
        |(versions, link, role, conn, resume, summaries, policy)| Open {
            versions,
            link,
            role,
            conn,
            resume,
            summaries,
            policy,
        },
    )
}

fn accept() -> impl Strategy<Value = Accept> {
    (small(), option::of(conn()), option::of(summary()), option::of(policy()))
        .prop_map(|(version, resume, summary, policy)| Accept { version, resume, summary, policy })
}

fn close() -> impl Strategy<Value = Close> {
    let reason = prop::sample::select(vec![
        CloseReason::Cut,
        CloseReason::NoSuchTask,
        CloseReason::Stale,
        CloseReason::Violation,
        CloseReason::Version,
        CloseReason::Done,
    ]);
    (reason, text()).prop_map(|(reason, message)| Close { reason, message })
}

pub(super) fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        1 => open().prop_map(Frame::Open),
        1 => accept().prop_map(Frame::Accept),
        4 => items().prop_map(Frame::Items),
        1 => (number(), number()).prop_map(|(items, bytes)| Frame::Grant(Grant { items, bytes })),
        1 => settled().prop_map(|settled| Frame::Ack(Ack { settled })),
        1 => range_set().prop_map(|numbers| Frame::Return(Return { numbers })),
        1 => close().prop_map(Frame::Close),
    ]
}

// Pipelines.

fn op() -> impl Strategy<Value = Op> {
    use Op::{Filter, FlatMap, Map, Sink, Source, Terminal};
    prop::sample::select(vec![Source, Map, Filter, FlatMap, Sink, Terminal])
}

fn stage() -> impl Strategy<Value = Stage> {
    let site = prop::sample::select(vec![Site::Client, Site::Fleet]);
    let params = vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    let types = (option::of(type_tag()), option::of(type_tag()));
    let settings = (option::of(small()), option::of(small()), option::of(duration()), small());
    (text(), op(), site, text(), params, types, settings).prop_map(
        |(name, op, site, function, params, (input, output), settings)| {
            let (workers, workers_per, timeout, retries) = settings;
            Stage {
                name,
                op,
                site,
                function,
                params,
                input,
                output,
                workers,
                workers_per,
                timeout,
                retries,
            }
        },
    )
}

fn channel() -> impl Strategy<Value = Channel> {
    let carries = prop::sample::select(vec![Carries::All, Carries::Errors]);
    (stage_id(), stage_id(), carries, option::of(small()))
        .prop_map(|(from, to, carries, buffer)| Channel { from, to, carries, buffer })
}

fn pipeline() -> impl Strategy<Value = Pipeline> {
    (text(), vec(stage(), 0..4), vec(channel(), 0..4), option::of(number())).prop_map(
        |(name, stages, channels, max_in_flight)| Pipeline {
            name,
            stages,
            channels,
            max_in_flight,
        },
    )
}

// Control.

fn process_kind() -> impl Strategy<Value = ProcessKind> {
    prop::sample::select(vec![ProcessKind::Worker, ProcessKind::Client])
}

fn function() -> impl Strategy<Value = Function> {
    (text(), op(), small(), option::of(type_tag()), option::of(type_tag()), any::<bool>()).prop_map(
        |(name, op, slots, input, output, replayable)| Function {
            name,
            op,
            slots,
            input,
            output,
            replayable,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let functions = (vec(function(), 0..3), any::<bool>());
    (versions(), process_kind(), text(), any::<u64>(), option::of(text()), functions).prop_map(
        |(versions, kind, name, incarnation, address, (functions, leaving))| Hello {
            versions,
            kind,
            name,
            incarnation: Incarnation(incarnation),
            address,
            functions,
            leaving,
        },
    )
}

fn abandoned() -> impl Strategy<Value = AbandonedCalls> {
    (text(), any::<u32>(), any::<u32>(), any::<u32>(), text()).prop_map(
        |(function, calls, slots, millis, example)| AbandonedCalls {
            function,
            calls,
            slots,
            oldest: Duration::from_millis(millis.into()),
            example,
        },
    )
}

fn census() -> impl Strategy<Value = Census> {
    [number(), number(), number(), number(), number()].prop_map(
        |[runtime_tasks, tasks, links, children, timers]| Census {
            runtime_tasks,
            tasks,
            links,
            children,
            timers,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let kind = prop::sample::select(vec![
        FailureKind::Invalid,
        FailureKind::MissingStage,
        FailureKind::TypeMismatch,
        FailureKind::SourceLost,
        FailureKind::Internal,
    ]);
    prop_oneof![
        Just(Outcome::Completed),
        text().prop_map(Outcome::Cancelled),
        (kind, text()).prop_map(|(kind, message)| Outcome::Failed(Failure { kind, message })),
    ]
}

fn phase() -> impl Strategy<Value = JobPhase> {
    prop_oneof![
        vec(text(), 0..3).prop_map(JobPhase::Waiting),
        Just(JobPhase::Running),
        outcome().prop_map(JobPhase::Ending),
        outcome().prop_map(JobPhase::Ended),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    (task_id(), any::<u64>(), option::of(text())).prop_map(|(id, process, address)| Peer {
        id,
        process: Incarnation(process),
        address,
    })
}

fn job_view() -> impl Strategy<Value = JobView> {
    let flags = (any::<bool>(), any::<bool>());
    let plan = (task_id(), small(), flags).prop_map(|(id, slots, (again, drain))| TaskPlan {
        id,
        slots,
        again,
        drain,
    });
    let tasks = (vec(plan, 0..3), vec(peer(), 0..3));
    let positions = btree_map(stage_id(), number(), 0..3);
    let rest = (any::<bool>(), channels(), positions);
    (any::<u64>(), [number(), number(), number(), number()], pipeline(), phase(), tasks, rest)
        .prop_map(|(job, numbers, pipeline, phase, (tasks, peers), rest)| {
            let [term, revision, highest, window] = numbers;
            let (pause_sources, cut, positions) = rest;
            JobView {
                job: JobId(job),
                term: Term(term),
                revision,
                pipeline,
                phase,
                tasks,
                peers,
                highest_epoch: Epoch(highest),
                window,
                pause_sources,
                cut,
                positions,
            }
        })
}

/// Every field with a number of its own, so that two that are swapped show.
fn stats() -> impl Strategy<Value = TaskStats> {
    let errors = btree_map(prop::sample::select(&ErrorKind::ALL[..]), number(), 0..4);
    (vec(number(), 17), errors).prop_map(|(n, errors)| TaskStats {
        received: n[0],
        started: n[1],
        sent: n[2],
        filtered: n[3],
        errors,
        retries: n[4],
        resent: n[5],
        duplicates: n[6],
        divergent: n[7],
        stale: n[8],
        cut: n[9],
        busy: n[10],
        queued: n[11],
        waiting_for_credit: n[12],
        unacked: n[13],
        retained_bytes: n[14],
        links: n[15],
        frames: n[16],
    })
}

fn lineage() -> impl Strategy<Value = Lineage> {
    (stage_id(), number(), vec(step(), 0..4)).prop_map(|(source, root, steps)| Lineage {
        source,
        root,
        steps,
    })
}

fn marked_item() -> impl Strategy<Value = MarkedItem> {
    let state = prop::sample::select(vec![
        MarkState::Asking,
        MarkState::Holding,
        MarkState::Crowded,
        MarkState::Running,
        MarkState::Alone,
        MarkState::Away,
        MarkState::Done,
    ]);
    (lineage(), state).prop_map(|(lineage, state)| MarkedItem { lineage, state })
}

fn verdicts() -> impl Strategy<Value = Verdicts> {
    let death = (text(), any::<u64>(), any::<bool>()).prop_map(|(worker, process, alone)| Death {
        worker,
        process: Incarnation(process),
        alone,
    });
    let verdict = prop_oneof![
        Just(Verdict::Run),
        Just(Verdict::Alone),
        Just(Verdict::Start),
        vec(death, 0..4).prop_map(Verdict::Convicted),
        Just(Verdict::Left),
        Just(Verdict::Finished),
    ];
    (any::<u64>(), number(), task_id(), vec((lineage(), verdict), 0..4)).prop_map(
        |(job, term, task, verdicts)| Verdicts {
            job: JobId(job),
            term: Term(term),
            task,
            verdicts,
        },
    )
}

fn task_report() -> impl Strategy<Value = TaskReport> {
    let ended = option::of(prop_oneof![
        Just(TaskEnd::Stopped),
        Just(TaskEnd::LostLinks),
        text().prop_map(TaskEnd::Failed),
    ]);
    let source = option::of(
        (number(), option::of(number()), any::<bool>())
            .prop_map(|(watermark, exhausted, full)| SourceReport { watermark, exhausted, full }),
    );
    let reach = (any::<bool>(), channels());
    let rest = (channels(), any::<bool>(), roots(), vec(marked_item(), 0..3), reach);
    (task_id(), ended, stats(), source, rest).prop_map(
        |(id, ended, stats, source, (cut, over_budget, oldest, marked, reach))| TaskReport {
            id,
            ended,
            stats,
            source,
            cut,
            over_budget,
            oldest,
            marked,
            reached: reach.0,
            unreached: reach.1,
        },
    )
}

pub(super) fn job_status() -> impl Strategy<Value = JobStatus> {
    let by_worker = btree_map(text(), number(), 0..3);
    let stage = (text(), op(), small(), stats(), by_worker).prop_map(
        |(name, op, slots, totals, by_worker)| StageStatus { name, op, slots, totals, by_worker },
    );
    let held =
        (text(), number(), text()).prop_map(|(source, root, stage)| HeldUp { source, root, stage });
    let lists = (vec(stage, 0..3), vec(held, 0..2));
    (any::<u64>(), text(), phase(), text(), duration(), lists).prop_map(
        |(job, name, phase, client, age, (stages, held_up_by))| JobStatus {
            job: JobId(job),
            name,
            phase,
            client,
            age,
            stages,
            held_up_by,
        },
    )
}

pub(super) fn process_status() -> impl Strategy<Value = ProcessStatus> {
    let rest = (any::<bool>(), any::<bool>(), number(), vec(abandoned(), 0..2));
    (hello(), census(), rest).prop_map(|(hello, census, rest)| ProcessStatus {
        name: hello.name,
        kind: hello.kind,
        incarnation: hello.incarnation,
        address: hello.address,
        functions: hello.functions,
        census,
        connected: rest.0,
        leaving: rest.1,
        suspects: rest.2,
        abandoned: rest.3,
    })
}

pub(super) fn up() -> impl Strategy<Value = Up> {
    let report = (any::<u64>(), any::<u64>(), any::<u64>(), vec(task_report(), 0..3)).prop_map(
        |(job, term, revision, tasks)| Report {
            job: JobId(job),
            term: Term(term),
            revision,
            tasks,
        },
    );
    let submit = (any::<u64>(), pipeline(), duration())
        .prop_map(|(job, pipeline, wait_stages)| Submit { job: JobId(job), pipeline, wait_stages });
    prop_oneof![
        hello().prop_map(Up::Hello),
        census().prop_map(Up::Heartbeat),
        vec(abandoned(), 0..3).prop_map(Up::Abandoned),
        report.prop_map(Up::Report),
        submit.prop_map(Up::Submit),
        (any::<u64>(), text()).prop_map(|(job, why)| Up::Cancel(JobId(job), why)),
        Just(Up::Leaving),
        Just(Up::Goodbye),
    ]
}

pub(super) fn down() -> impl Strategy<Value = Down> {
    let welcome = (small(), number(), duration()).prop_map(|(version, term, lease)| Welcome {
        version,
        term: Term(term),
        lease,
    });
    prop_oneof![
        welcome.prop_map(Down::Welcome),
        text().prop_map(Down::Refused),
        Just(Down::Alive),
        job_view().prop_map(|v| Down::View(Box::new(v))),
        job_status().prop_map(|s| Down::Status(Box::new(s))),
        any::<u64>().prop_map(|job| Down::Forget(JobId(job))),
        verdicts().prop_map(Down::Verdicts),
    ]
}
