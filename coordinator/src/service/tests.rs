use futures_util::StreamExt;
use stageline_proto::door::PREFACE;
use stageline_proto::v1::jobs_client::JobsClient;
use stageline_proto::v1::list_processes_response::Listed;
use stageline_proto::v1::session_client::SessionClient;
use stageline_proto::{Wire, v1};
use stageline_protocol::control::{Down, Hello, ProcessKind, Submit, Up};
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::{Incarnation, JobId, StageId, VERSIONS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;

use super::*;
use crate::engine::Config;
use crate::server::Coordinator;

#[tokio::test]
async fn a_process_speaks_over_grpc_and_is_listed() {
    let served = Served::start().await;
    let (up, mut down) = served.session().await;
    let mut hello = hello();
    hello.address = Some(":7401".into());
    up.send(Up::Hello(hello).encode()).await.unwrap();
    let welcome = Down::decode(down.message().await.unwrap().unwrap()).unwrap();
    assert!(matches!(welcome, Down::Welcome(_)));

    let mut jobs = JobsClient::connect(served.url()).await.unwrap();
    let listed = jobs.list_processes(v1::ListProcessesRequest::default()).await.unwrap();
    let mut listed = listed.into_inner();
    let first = listed.message().await.unwrap().unwrap().listed;
    assert!(matches!(first, Some(Listed::Coordinator(census)) if census.links == 1));
    let second = listed.message().await.unwrap().unwrap().listed;
    let Some(Listed::Process(process)) = second else { panic!("{second:?}") };
    assert_eq!(process.address.as_deref(), Some("127.0.0.1:7401"));
    assert!(listed.message().await.unwrap().is_none());
    let none = jobs.list_jobs(v1::ListJobsRequest::default()).await.unwrap();
    assert!(none.into_inner().message().await.unwrap().is_none());
    let unknown = jobs.get_job(v1::GetJobRequest { job: 5 }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("0000000000000005"), "{unknown}");
    let request = v1::CancelJobRequest { job: 5, reason: "so".into() };
    assert_eq!(jobs.cancel_job(request).await.unwrap_err().code(), Code::NotFound);

    served.stop().await;
    assert!(!matches!(down.message().await, Ok(Some(_))), "the session is over");
}

/// Each of them fits a message; all together are twice what one may have.
#[tokio::test]
async fn lists_of_any_length_are_told() {
    let served = Served::start().await;
    let mut jobs = JobsClient::connect(served.url()).await.unwrap();
    let mut sessions = Vec::new();
    for number in 0..8 {
        let (up, mut down) = served.session().await;
        let name = format!("{number}{}", "n".repeat(1 << 20));
        let hello = Hello { name, incarnation: Incarnation(number + 1), ..hello() };
        up.send(Up::Hello(Hello { kind: ProcessKind::Client, ..hello }).encode()).await.unwrap();
        let submit =
            Submit { job: JobId(number + 1), pipeline: line(), wait_stages: Duration::ZERO };
        up.send(Up::Submit(submit).encode()).await.unwrap();
        down.message().await.unwrap().unwrap();
        sessions.push((up, down));
    }
    let listed = jobs.list_processes(v1::ListProcessesRequest::default()).await.unwrap();
    let processes = listed.into_inner().collect::<Vec<_>>().await;
    assert_eq!(processes.into_iter().filter_map(Result::ok).count(), 9, "the coordinator, too");
    let mut listed = 0;
    while listed < 8 {
        let answer = jobs.list_jobs(v1::ListJobsRequest::default()).await.unwrap();
        let answer: Vec<_> = answer.into_inner().collect().await;
        listed = answer.into_iter().filter_map(Result::ok).count();
    }
    served.stop().await;
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_refused_by_name() {
    let served = Served::start().await;
    let (up, mut down) = served.session().await;
    up.send(v1::SessionUp { message: None }).await.unwrap();
    let refused = Down::decode(down.message().await.unwrap().unwrap()).unwrap();
    assert!(matches!(refused, Down::Refused(why) if why.contains("does not decode")));
    assert!(down.message().await.unwrap().is_none());
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_http2_disturbs_nobody() {
    let served = Served::start().await;
    let (up, mut down) = served.session().await;
    up.send(Up::Hello(hello()).encode()).await.unwrap();
    down.message().await.unwrap().unwrap();

    let mut answer = String::new();
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    plain.read_to_string(&mut answer).await.ok();
    assert!(answer.starts_with("HTTP/1.1 426") && answer.contains("gRPC"), "{answer:?}");

    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], &[0; 4096], b"PRI * HTTP/2.0\r\n\r\nXX\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _reset_or_closed = stream.read_to_end(&mut rest).await;
    }
    // A right beginning, and nonsense after it.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0xff; 512]).await.unwrap();
    let _reset_or_closed = stream.read_to_end(&mut Vec::new()).await;

    up.send(Up::Heartbeat(stageline_protocol::control::Census::default()).encode()).await.unwrap();
    let alive = Down::decode(down.message().await.unwrap().unwrap()).unwrap();
    assert_eq!(alive, Down::Alive);
    served.stop().await;
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_named_with_the_remedy() {
    let taken = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.address().to_string();
    let error = Listener::bind(&address).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("another process"), "{error}");
    let error = Listener::bind("nonsense").await.unwrap_err().to_string();
    assert!(error.contains("nonsense") && error.contains("HOST:PORT"), "{error}");
}

#[tokio::test]
async fn a_store_that_fails_ends_the_server() {
    use crate::store::{Record, Store, StoreError, Stored};
    struct Broken;
    impl Store for Broken {
        fn load(&mut self) -> Result<Stored, StoreError> {
            Ok(Stored::default())
        }
        fn put(&mut self, records: &[Record]) -> Result<(), StoreError> {
            match records {
                [Record::Term(_)] => Ok(()),
                _ => Err(StoreError("no more paper".into())),
            }
        }
    }
    let at = crate::server::wall_clock();
    let coordinator = Coordinator::start_with(Config::default(), at, Broken).unwrap();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let (tx, _rx) = coordinator.open_session(None);
    tx.send(Up::Hello(Hello { kind: ProcessKind::Client, ..hello() })).await.unwrap();
    let submit = Submit { job: JobId(1), pipeline: line(), wait_stages: Duration::ZERO };
    tx.send(Up::Submit(submit)).await.unwrap();
    let error = serve(listener, coordinator, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("no more paper"), "{error}");
}

/// A source and a terminal.
fn line() -> Pipeline {
    let mut pipeline = Pipeline::default();
    pipeline.stages.push(Stage::new("in", Op::Source, Site::Client));
    pipeline.stages.push(Stage::new("out", Op::Terminal, Site::Client));
    let (from, to) = (StageId(0), StageId(1));
    pipeline.channels.push(Channel { from, to, carries: Carries::All, buffer: None });
    pipeline
}

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    async fn start() -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let stop = CancellationToken::new();
        let coordinator = Coordinator::start(Config::default());
        let server = tokio::spawn(serve(listener, coordinator, stop.clone()));
        Self { address, stop, server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn session(&self) -> (mpsc::Sender<v1::SessionUp>, tonic::Streaming<v1::SessionDown>) {
        let (up, outbound) = mpsc::channel(8);
        let mut client = SessionClient::connect(self.url()).await.unwrap();
        let down = client.session(ReceiverStream::new(outbound)).await.unwrap();
        (up, down.into_inner())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        kind: ProcessKind::Worker,
        name: "w".into(),
        incarnation: Incarnation(1),
        address: None,
        functions: Vec::new(),
        leaving: false,
    }
}
