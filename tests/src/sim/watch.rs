//! What must hold on the wires, seen from outside the machines: every frame passes here when it is
//! sent, every grant once more when it arrives.

use std::collections::BTreeMap;

use stageline_protocol::frame::{CloseReason, Frame, Grant, Summary};
use stageline_protocol::ranges::Settled;
use stageline_protocol::{ConnId, Lineage, LinkId};

use super::oracle::Oracle;

/// All connections of all links, past ones included: a newer one may resume from them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    wires: BTreeMap<(LinkId, ConnId), OnWire>,
}

#[derive(Debug, Default)]
struct OnWire {
    /// The items by their number on this connection.
    items: Vec<Lineage>,
    forfeited: u64,
    /// The latest grant that the receiver has sent.
    sent: Grant,
    /// The latest grant that the sender has.
    arrived: Grant,
    settled: Settled,
}

impl Watch {
    /// The ends have agreed on a new connection; the items that the summary holds carry over.
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        conn: ConnId,
        resumed: Option<&Summary>,
    ) -> Result<(), String> {
        let mut wire = OnWire::default();
        if let Some(summary) = resumed {
            let Some(older) = self.wires.get(&(link, summary.conn)) else {
                return Err(format!("{link}: resumed from {}, which never was", summary.conn));
            };
            for number in summary.held.iter().flatten() {
                let Some(lineage) = usize::try_from(number).ok().and_then(|n| older.items.get(n))
                else {
                    return Err(format!("{link}: holds number {number}, which was never sent"));
                };
                wire.items.push(lineage.clone());
            }
        }
        self.wires.insert((link, conn), wire);
        Ok(())
    }

    /// A frame is put on the wire.
    pub(super) fn sent(
        &mut self,
        link: LinkId,
        conn: ConnId,
        frame: &Frame,
        oracle: &Oracle,
    ) -> Result<(), String> {
        let wire = || format!("{link} on {conn}");
        if let Frame::Close(close) = frame
            && close.reason == CloseReason::Violation
        {
            return Err(format!("{}: broke the protocol: {}", wire(), close.message));
        }
        let Some(on_wire) = self.wires.get_mut(&(link, conn)) else { return Ok(()) };
        match frame {
            Frame::Items(items) => {
                if items.forfeited < on_wire.forfeited {
                    return Err(format!("{}: forfeited credit fell", wire()));
                }
                on_wire.forfeited = items.forfeited;
                on_wire.items.extend(items.batch.iter().map(|item| item.lineage.clone()));
                let (spent, granted) =
                    (on_wire.items.len() as u64 + items.forfeited, on_wire.arrived.items);
                if spent > granted && !items.batch.is_empty() {
                    return Err(format!("{}: sent {spent} > granted {granted}", wire()));
                }
            }
            Frame::Grant(grant) => {
                if grant.items < on_wire.sent.items || grant.bytes < on_wire.sent.bytes {
                    return Err(format!("{}: a limit fell to {grant:?}", wire()));
                }
                on_wire.sent = *grant;
            }
            Frame::Ack(ack) => {
                if !on_wire.settled.since(&ack.settled).is_empty() {
                    return Err(format!("{}: an ack was taken back", wire()));
                }
                for number in ack.settled.since(&on_wire.settled).into_iter().flatten() {
                    let item = usize::try_from(number).ok().and_then(|n| on_wire.items.get(n));
                    let Some(item) = item else {
                        return Err(format!("{}: acked {number}, which was never sent", wire()));
                    };
                    oracle.check_safe(item).map_err(|missing| {
                        format!("{}: acked {item}, but {missing} is not delivered", wire())
                    })?;
                }
                on_wire.settled = ack.settled.clone();
            }
            Frame::Open(_) | Frame::Accept(_) | Frame::Return(_) | Frame::Close(_) => {}
        }
        Ok(())
    }

    /// A summary says that items are safe: they must be.
    pub(super) fn summarised(
        &self,
        link: LinkId,
        summary: &Summary,
        oracle: &Oracle,
    ) -> Result<(), String> {
        let Some(on_wire) = self.wires.get(&(link, summary.conn)) else { return Ok(()) };
        for (number, item) in (0..).zip(&on_wire.items) {
            if summary.acked.contains(number) {
                oracle.check_safe(item).map_err(|missing| {
                    format!("{link}: a summary has {item} as acked, {missing} is not delivered")
                })?;
            }
        }
        Ok(())
    }

    /// A frame has reached its end.
    pub(super) fn arrived(&mut self, link: LinkId, conn: ConnId, frame: &Frame) {
        if let Frame::Grant(grant) = frame
            && let Some(on_wire) = self.wires.get_mut(&(link, conn))
        {
            on_wire.arrived = *grant;
        }
    }
}
