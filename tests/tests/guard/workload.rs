//! The workload `stages` of the benchmark, so that it takes the same course each time: *source → map →
//! map → sink*, a worker for each of them, a coordinator and a client, all on one thread and on a clock of
//! its own: that goes on with the items that the source makes, and when all wait for it. So automatic
//! windows and buffers, timers and reports follow the items, and not the machine.
//!
//! It is the real code, gRPC included; only the network is of pipes. The functions do next to nothing, and
//! the memory of their items comes in chunks: what is counted is the runtime's. Settings are the default
//! ones, but for the window.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future, stream};
use stageline::{Client, JobStatus, Registry, Sink, Source, Stage, Stream};
use stageline_coordinator::server::Coordinator;
use stageline_coordinator::service;
use stageline_worker::{RunningWorker, Worker};
use tokio::runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pipes::Pipes;

const SOURCE: Source<Bytes> = Source::named("source");
const FIRST: Stage<Bytes, Bytes> = Stage::named("first");
const SECOND: Stage<Bytes, Bytes> = Stage::named("second");
const SINK: Sink<Bytes> = Sink::named("sink");

/// An item as the source makes it, in bytes.
const PAYLOAD: usize = 128;
/// How long the source waits for the last acks before it ends, on the clock of the cluster.
const ACKS: Duration = Duration::from_secs(1);
/// What each map appends, in bytes.
const APPENDED: usize = 8;
/// What a thread allocates at a time, in bytes.
const CHUNK: usize = 64 << 10;
/// On the clock of the cluster, an item takes so long: so sizes that follow a pace, which is measured every
/// 50 ms, do so for most of a small job, too.
const PACE: Duration = Duration::from_micros(10);
/// Roots under way. The automatic window is small until the pace is known, and holds a job up at its start;
/// whenever an ack then opens it, reports and plans go round, more of them or fewer as chance will have it.
const WINDOW: u64 = 1 << 15;
/// The clock goes on every so many items, all at once: a source that seems slow hands over few at a time.
const TICK: u32 = 1_024;
/// On the same clock: a job that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs one job of so many items on a cluster of its own, and answers how many frames its source and its
/// maps have sent.
///
/// # Panics
/// When the sink did not get each item once, as it must be.
pub(crate) fn run(items: u64) -> u64 {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let status = runtime.unwrap().block_on(cluster(items));
    let sum = |of: fn(&stageline::TaskStats) -> u64| -> u64 {
        status.stages.iter().map(|stage| of(&stage.totals)).sum()
    };
    assert_eq!(sum(|totals| totals.resent + totals.duplicates), 0, "nothing went wrong");
    let senders = [SOURCE.name(), FIRST.name(), SECOND.name()];
    let senders = status.stages.iter().filter(|stage| senders.contains(&stage.name.as_str()));
    let frames: Vec<u64> = senders.map(|stage| stage.totals.frames).collect();
    assert!(frames.len() == 3 && frames.iter().all(|&frames| frames > 0), "{frames:?}");
    frames.iter().sum()
}

async fn cluster(items: u64) -> JobStatus {
    let pipes = Pipes::default();
    let at_sink = Arc::new(Tally::default());
    let coordinator = address(7400);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(service::serve_on(
        coordinator,
        pipes.listen(coordinator),
        Coordinator::start(Default::default()),
        stop.clone(),
    ));
    let workers: Vec<RunningWorker> = (7401..)
        .zip(registries(items, &at_sink))
        .map(|(port, registry)| {
            let address = address(port);
            Worker::new(registry, coordinator.to_string())
                .name(format!("worker-{port}"))
                .dialler(pipes.dialler())
                .start_on(address, pipes.listen(address))
                .unwrap()
        })
        .collect();
    let client = Client::builder()
        .name("client")
        .dialler(pipes.dialler())
        .connect(coordinator.to_string())
        .await
        .unwrap();

    let stream = Stream::source(SOURCE).max_in_flight(WINDOW).map(FIRST).map(SECOND);
    let job = stream.for_each(SINK, &client);
    let ended = tokio::time::timeout(LIMIT, job).await.expect("the job hangs");
    let (status, errors) = ended.unwrap();
    assert_eq!(errors, []);
    at_sink.check(items);

    client.close().await;
    for worker in workers {
        worker.stop().await;
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
    status
}

/// One function each.
///
/// The source does not end before all is acked. Each ack that it gets after its end makes a report, of all
/// that is under way then, and how many these are is chance.
fn registries(items: u64, at_sink: &Arc<Tally>) -> [Registry; 4] {
    let (at_sink, all_there) = (at_sink.clone(), at_sink.clone());
    [
        Registry::new().source(SOURCE, move |from: u64| {
            let tally = all_there.clone();
            let end = async move {
                tally.complete.notified().await;
                tokio::time::sleep(ACKS).await;
            };
            let end = stream::once(end).filter_map(|()| future::ready(None));
            stream::iter((from..items).map(make)).chain(end)
        }),
        Registry::new().map(FIRST, |item: Bytes| async move { appended(&item) }),
        Registry::new().map(SECOND, |item: Bytes| async move { appended(&item) }),
        Registry::new().for_each(SINK, move |item: Bytes| {
            at_sink.take(&item, items);
            async {}
        }),
    ]
}

fn make(index: u64) -> Bytes {
    if index.is_multiple_of(u64::from(TICK)) {
        // The clock goes on at once; to wait would be for the timers that have become due.
        let _timers = tokio::time::advance(PACE * TICK).now_or_never();
    }
    cut(|buffer| {
        buffer.put_u64_le(index);
        buffer.put_bytes(0, PAYLOAD - 8);
    })
}

fn appended(item: &[u8]) -> Bytes {
    cut(|buffer| {
        buffer.put_slice(item);
        buffer.put_bytes(1, APPENDED);
    })
}

/// An item written into the thread's chunk, and cut from it.
fn cut(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    thread_local! {
        static REST: RefCell<BytesMut> = RefCell::default();
    }
    REST.with_borrow_mut(|rest| {
        if rest.capacity() < PAYLOAD + 2 * APPENDED {
            rest.reserve(CHUNK);
        }
        write(rest);
        rest.split().freeze()
    })
}

/// What came out.
#[derive(Debug, Default)]
struct Tally {
    items: AtomicU64,
    indexes: AtomicU64,
    bytes: AtomicU64,
    complete: Notify,
}

impl Tally {
    fn take(&self, item: &[u8], of: u64) {
        let index = item.first_chunk().map_or(0, |index| u64::from_le_bytes(*index));
        if self.items.fetch_add(1, Ordering::Relaxed) + 1 == of {
            self.complete.notify_one();
        }
        self.indexes.fetch_add(index, Ordering::Relaxed);
        self.bytes.fetch_add(item.len() as u64, Ordering::Relaxed);
    }

    fn check(&self, items: u64) {
        let found = [&self.items, &self.indexes, &self.bytes].map(|n| n.load(Ordering::Relaxed));
        let size = (PAYLOAD + 2 * APPENDED) as u64;
        assert_eq!(found, [items, items * (items - 1) / 2, items * size], "items, indexes, bytes");
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
