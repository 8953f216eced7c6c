//! The gRPC baselines.
//!
//! - `tonic-item`: a message an item, and acks; nothing else, and tonic's default settings.
//! - `tonic-packed`: a message up to 256 items or 64 KiB, as one blob with a column of lengths. It is
//!   what a program looks like that keeps its work apart from its calls: a task and a channel stand
//!   between the two in each process, and a sender retains what is not acked.

mod item;
mod pack;
mod packed;

use std::pin::Pin;

use anyhow::Result;
use futures_util::Stream;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::node::{Node, Share};
use super::plan::System;
use wire::baseline_client::BaselineClient;
use wire::baseline_server::{Baseline, BaselineServer};
use wire::{Ack, Item, Pack};

/// What is compiled from `baseline.proto`.
#[allow(missing_docs, clippy::pedantic, reason = "generated")]
pub mod wire {
    tonic::include_proto!("baseline");
}

/// HTTP/2 frames of `tonic-packed`, in bytes at the most: a pack and its column. Up to half as fast
/// again as with the default of 16 KiB; other windows than the default were no faster.
const FRAME: u32 = 66 << 10;

type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

/// Makes the items and sends them; returns when all are acked.
///
/// # Errors
/// When the call fails.
pub async fn source(node: Node, share: Share, to: String) -> Result<()> {
    match node.system {
        System::TonicPacked => packed::source(node, share, to).await,
        _ => item::source(node, share, to).await,
    }
}

/// Serves calls, as a map or a sink.
///
/// # Errors
/// When the port fails.
pub async fn serve(node: Node, listener: TcpListener) -> Result<()> {
    let frame = (node.system == System::TonicPacked).then_some(FRAME);
    let service = BaselineServer::new(Service(node));
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder()
        .max_frame_size(frame)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?)
}

async fn dial(to: &str) -> Result<BaselineClient<Channel>> {
    let channel = Endpoint::from_shared(format!("http://{to}"))?.connect().await?;
    Ok(BaselineClient::new(channel))
}

struct Service(Node);

#[tonic::async_trait]
impl Baseline for Service {
    type SingleStream = Acks;
    type PackedStream = Acks;

    async fn single(&self, request: Request<Streaming<Item>>) -> Result<Response<Acks>, Status> {
        item::answer(self.0.clone(), request.into_inner()).await.map_err(failed).map(Response::new)
    }

    async fn packed(&self, request: Request<Streaming<Pack>>) -> Result<Response<Acks>, Status> {
        packed::answer(self.0.clone(), request.into_inner())
            .await
            .map_err(failed)
            .map(Response::new)
    }
}

fn failed(error: anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
}
