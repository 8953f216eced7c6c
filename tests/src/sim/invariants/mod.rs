//! What must hold, each in a file of its own, checked after every step.
//!
//! Those about links are seen from outside the machines: every frame passes here when it is sent, and
//! once more when it arrives. That the job ends, and that everybody lets go of it then, is checked by
//! the scheduler itself ([`super::cluster`]).

mod acks;
pub(super) mod boundary;
mod credit;
mod fencing;
pub(super) mod finished;
mod manners;
pub(super) mod own;
pub(super) mod stored;
pub(super) mod window;

use stageline_protocol::control::JobView;
use stageline_protocol::frame::{Frame, Summary};
use stageline_protocol::{ConnId, LinkId, TaskId};

use self::boundary::Boundary;

/// The invariants of links.
#[derive(Debug, Default)]
pub(super) struct OnLinks {
    acks: acks::Acks,
    credit: credit::Credit,
    fencing: fencing::Fencing,
}

impl OnLinks {
    /// A process with this view has accepted a connection from a peer.
    pub(super) fn accepted(
        &mut self,
        link: LinkId,
        conn: ConnId,
        peer: TaskId,
        view: Option<&JobView>,
    ) -> Result<(), String> {
        self.fencing.accepted(link, conn, peer, view)
    }

    /// The ends have agreed on a new connection; the items that the summary holds carry over.
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        conn: ConnId,
        resumed: Option<&Summary>,
    ) -> Result<(), String> {
        self.credit.connected(link, conn, resumed);
        self.acks.connected(link, conn, resumed)
    }

    /// A frame is put on the wire.
    pub(super) fn sent(
        &mut self,
        link: LinkId,
        conn: ConnId,
        frame: &Frame,
        boundary: &Boundary,
    ) -> Result<(), String> {
        manners::sent(link, conn, frame)?;
        self.credit.sent(link, conn, frame)?;
        self.acks.sent(link, conn, frame, boundary)
    }

    /// A summary says that items are safe.
    pub(super) fn summarised(
        &self,
        link: LinkId,
        summary: &Summary,
        boundary: &Boundary,
    ) -> Result<(), String> {
        self.acks.summarised(link, summary, boundary)
    }

    /// A frame has reached its end.
    pub(super) fn arrived(&mut self, link: LinkId, conn: ConnId, frame: &Frame) {
        self.credit.arrived(link, conn, frame);
    }
}
