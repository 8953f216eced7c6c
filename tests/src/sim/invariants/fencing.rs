//! Fencing: what has been replaced is refused. A task connects only with tasks that its plan has, or
//! that are newer than it; and a connection only ever gives way to a newer one.

use std::collections::BTreeMap;

use stageline_protocol::control::JobView;
use stageline_protocol::{ConnId, LinkId, TaskId};

/// The newest connection of each link that was agreed upon.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    newest: BTreeMap<LinkId, ConnId>,
}

impl Fencing {
    /// The process with this view accepted a connection of a link from this peer.
    pub(super) fn accepted(
        &mut self,
        link: LinkId,
        conn: ConnId,
        peer: TaskId,
        view: Option<&JobView>,
    ) -> Result<(), String> {
        let Some(view) = view else {
            return Err(format!("{link}: accepted {conn} without a view"));
        };
        let known = view.peers.iter().any(|known| known.id == peer);
        if !known && peer.epoch <= view.highest_epoch {
            return Err(format!("{link}: accepted {conn} of task {peer}, which was replaced"));
        }
        match self.newest.insert(link, conn) {
            Some(older) if older >= conn => {
                Err(format!("{link}: {conn} took over from {older}, which is newer"))
            }
            _ => Ok(()),
        }
    }
}
