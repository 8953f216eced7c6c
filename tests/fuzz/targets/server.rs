//! The coordinator's server on a connection whose other end says anything: raw bytes, HTTP/2 frames of
//! any kind, calls of any method with any messages. It never panics, and it ends the connection in the
//! end: the clock runs by itself when nothing else does.
//!
//! A connection that does not begin with HTTP/2's preface never gets here: the server's door sees to it.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use futures_util::stream;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use stageline_coordinator::engine::Config;
use stageline_coordinator::server::Coordinator;
use stageline_coordinator::service::serve_on;
use stageline_coordinator::store::MemoryStore;
use stageline_proto::{Wire, v1};
use stageline_protocol::control::{Function, Hello, ProcessKind, Submit, Up};
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::{Incarnation, JobId, StageId, Time, VERSIONS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const METHODS: [&str; 6] = [
    "/stageline.v1.Session/Session",
    "/stageline.v1.Jobs/ListJobs",
    "/stageline.v1.Jobs/GetJob",
    "/stageline.v1.Jobs/CancelJob",
    "/stageline.v1.Jobs/ListProcesses",
    "/stageline.v1.Jobs/Nothing",
];
/// After so long, the server has hung up on whoever is silent.
const LIMIT: Duration = Duration::from_secs(60);

fuzz_target!(|data: &[u8]| {
    let bytes = compose(data);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(converse(bytes));
});

async fn converse(bytes: Vec<u8>) {
    let coordinator =
        Coordinator::start_with(Config::default(), Time::ZERO, MemoryStore::default())
            .expect("nothing is stored yet");
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let stop = CancellationToken::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let connections = Box::pin(stream::unfold(Some(theirs), |theirs| async {
        match theirs {
            Some(theirs) => Some((Ok(theirs), None)),
            None => std::future::pending().await,
        }
    }));
    let served = tokio::spawn(serve_on(address, connections, coordinator.clone(), stop.clone()));
    let (mut answers, mut words) = tokio::io::split(ours);
    let say = async {
        // It may hang up before it has heard all.
        let _hung_up = words.write_all(&bytes).await;
    };
    let hear = async {
        let mut buffer = vec![0; 1 << 14];
        let mut heard = 0;
        while let Ok(count @ 1..) = answers.read(&mut buffer).await {
            heard += count;
            assert!(heard < 64 << 20, "an answer without end");
        }
    };
    let both = async { tokio::join!(say, hear) };
    assert!(tokio::time::timeout(LIMIT, both).await.is_ok(), "the connection is held for ever");
    // Others are still served.
    coordinator.jobs().await.expect("the coordinator lives");
    stop.cancel();
    served.await.expect("the server did not panic").expect("the server did not break");
}

/// What goes over the connection: the input's own bytes, or a conversation that it chooses.
fn compose(data: &[u8]) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let Some((mode, rest)) = data.split_first() else { return out };
    if mode % 8 == 0 {
        out.extend_from_slice(rest);
        return out;
    }
    frame(&mut out, SETTINGS, 0, 0, &[]);
    if mode % 8 == 1 {
        out.extend_from_slice(rest);
        return out;
    }
    let mut u = Unstructured::new(rest);
    let mut streams = Vec::new();
    while !u.is_empty() && out.len() < 1 << 20 {
        let _out_of_bytes = piece(&mut u, &mut streams, &mut out);
    }
    out
}

fn piece(u: &mut Unstructured<'_>, streams: &mut Vec<u32>, out: &mut Vec<u8>) -> Result<()> {
    match u.int_in_range(0..=11)? {
        0..=2 => {
            let stream = 1 + 2 * streams.len() as u32;
            streams.push(stream);
            let method = *u.choose(&METHODS)?;
            let flags = END_HEADERS | if u.ratio(1, 16)? { END_STREAM } else { 0 };
            frame(out, HEADERS, flags, stream, &headers(method));
        }
        3..=8 if !streams.is_empty() => {
            let stream = *u.choose(streams)?;
            let content = message(u)?;
            let mut data = vec![u8::from(u.ratio(1, 32)?)];
            let length = content.len() as u32;
            let length = if u.ratio(1, 32)? { u.arbitrary()? } else { length };
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(&content);
            let flags = if u.ratio(1, 4)? { END_STREAM } else { 0 };
            for part in data.chunks(16_000) {
                frame(out, DATA, flags, stream, part);
            }
        }
        9 => {
            let length = usize::from(u.arbitrary::<u8>()?);
            out.extend_from_slice(u.bytes(length.min(u.len()))?);
        }
        _ => {
            let (kind, flags) = (u.int_in_range(0..=10)?, u.arbitrary()?);
            let stream = if u.arbitrary()? || streams.is_empty() {
                u.int_in_range(0..=9)?
            } else {
                *u.choose(streams)?
            };
            let length = usize::from(u.int_in_range(0..=40u8)?);
            let payload = u.bytes(length.min(u.len()))?;
            frame(out, kind, flags, stream, payload);
        }
    }
    Ok(())
}

/// What goes up a session or to a method: something sensible, or anything.
fn message(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let job = JobId(u.int_in_range(0..=3)?);
    let up = match u.int_in_range(0..=9)? {
        0..=2 => {
            let worker = u.arbitrary()?;
            Up::Hello(Hello {
                incarnation: Incarnation(u.int_in_range(0..=3)?),
                kind: if worker { ProcessKind::Worker } else { ProcessKind::Client },
                name: "n".into(),
                address: worker.then(|| ":1".to_owned()),
                versions: VERSIONS,
                functions: worker.then(by).into_iter().collect(),
                leaving: false,
            })
        }
        3..=4 => {
            Up::Submit(Submit { job, pipeline: pipeline(u)?, wait_stages: Duration::from_secs(1) })
        }
        5 => Up::Cancel(job, "why".into()),
        6 => Up::Goodbye,
        7 => return Ok(v1::GetJobRequest { job: job.0 }.encode_to_vec()),
        _ => {
            let length = usize::from(u.arbitrary::<u8>()?);
            return Ok(u.bytes(length.min(u.len()))?.to_vec());
        }
    };
    let mut bytes = up.encode().encode_to_vec();
    // Sensible but for some byte.
    if u.ratio(1, 4)? && !bytes.is_empty() {
        let index = u.choose_index(bytes.len())?;
        bytes[index] = u.arbitrary()?;
    }
    Ok(bytes)
}

fn by() -> Function {
    let (name, op) = ("by".to_owned(), Op::Map);
    Function { name, op, slots: 2, input: None, output: None, replayable: false }
}

fn pipeline(u: &mut Unstructured<'_>) -> Result<Pipeline> {
    let site = if u.arbitrary()? { Site::Fleet } else { Site::Client };
    Ok(Pipeline {
        name: "p".into(),
        stages: vec![
            Stage::new("from", Op::Source, site),
            Stage::new("by", Op::Map, Site::Fleet),
            Stage::new("to", Op::Terminal, Site::Client),
        ],
        channels: (0..2)
            .map(|from| Channel {
                from: StageId(from),
                to: StageId(from + 1),
                carries: Carries::All,
                buffer: None,
            })
            .collect(),
        max_in_flight: u.arbitrary()?,
    })
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Header fields as literals without an index: method POST and scheme http from the static table.
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let fields = [
        (":path", path),
        (":authority", "c"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
