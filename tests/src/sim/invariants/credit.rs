//! Credit: nobody sends beyond what has been granted and has arrived, and no counter ever falls.

use std::collections::BTreeMap;

use stageline_protocol::frame::{Frame, Grant, Summary};
use stageline_protocol::{ConnId, LinkId};

/// The credit of all connections of all links.
#[derive(Debug, Default)]
pub(super) struct Credit {
    wires: BTreeMap<(LinkId, ConnId), OnWire>,
}

#[derive(Debug, Default)]
struct OnWire {
    /// Items that have a number on this connection.
    items: u64,
    forfeited: u64,
    /// The latest grant that the receiver has sent.
    sent: Grant,
    /// The latest grant that the sender has.
    arrived: Grant,
}

impl Credit {
    /// A connection begins; what carries over has its credit already.
    pub(super) fn connected(&mut self, link: LinkId, conn: ConnId, resumed: Option<&Summary>) {
        let items = resumed.map_or(0, |summary| summary.held.iter().flatten().count() as u64);
        self.wires.insert((link, conn), OnWire { items, ..OnWire::default() });
    }

    pub(super) fn sent(&mut self, link: LinkId, conn: ConnId, frame: &Frame) -> Result<(), String> {
        let Some(wire) = self.wires.get_mut(&(link, conn)) else { return Ok(()) };
        let broken = match frame {
            Frame::Items(items) if items.forfeited < wire.forfeited => {
                "forfeited credit fell".to_owned()
            }
            Frame::Items(items) => {
                wire.forfeited = items.forfeited;
                wire.items += items.count();
                let (spent, granted) = (wire.items + items.forfeited, wire.arrived.items);
                if spent <= granted || items.batch.is_empty() {
                    return Ok(());
                }
                format!("sent {spent} > granted {granted}")
            }
            Frame::Grant(grant)
                if grant.items < wire.sent.items || grant.bytes < wire.sent.bytes =>
            {
                format!("a limit fell to {grant:?}")
            }
            Frame::Grant(grant) => {
                wire.sent = *grant;
                return Ok(());
            }
            _ => return Ok(()),
        };
        Err(format!("{link} on {conn}: {broken}"))
    }

    pub(super) fn arrived(&mut self, link: LinkId, conn: ConnId, frame: &Frame) {
        if let Frame::Grant(grant) = frame
            && let Some(wire) = self.wires.get_mut(&(link, conn))
        {
            wire.arrived = *grant;
        }
    }
}
