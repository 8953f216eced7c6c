//! The window: a source admits no root further above its announced watermark than it may.

use stageline_protocol::TaskId;

pub(in crate::sim) fn check(
    source: TaskId,
    admitted: u64,
    watermark: u64,
    most: u64,
) -> Result<(), String> {
    if admitted > watermark + most {
        return Err(format!(
            "{source}: admitted {admitted}, {most} above the watermark {watermark}"
        ));
    }
    Ok(())
}
