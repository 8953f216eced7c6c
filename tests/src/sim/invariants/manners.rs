//! Manners: nobody breaks the protocol. The machines here all run the same code, so what one of them
//! calls a violation is a defect, of the one or of the other.

use stageline_protocol::frame::{CloseReason, Frame};
use stageline_protocol::{ConnId, LinkId};

pub(super) fn sent(link: LinkId, conn: ConnId, frame: &Frame) -> Result<(), String> {
    match frame {
        Frame::Close(close) if close.reason == CloseReason::Violation => {
            Err(format!("{link} on {conn}: broke the protocol: {}", close.message))
        }
        _ => Ok(()),
    }
}
