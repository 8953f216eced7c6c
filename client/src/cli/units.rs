//! Durations and sizes as people write them: `10s`, `1m30s`, `500ms`; `16MiB`, `4096`.

use std::time::Duration;

/// Reads a duration: whole or decimal numbers, each with its unit (`ms`, `s`, `m`, `h`), added up.
/// A bare `0` needs no unit.
///
/// # Errors
/// What is wrong, and an example of what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example 500ms, 10s, 1m30s or 2h");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        } * number.parse::<f64>().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Reads a size in bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// What is wrong, and an example of what would be right.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write for example 4096, 64KiB or 16MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

/// Prints a duration for people: `0.42 s`, `17.3 s`, `4 min 05 s`, `2 h 03 min`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_units() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("1.5s", 1500), ("1m30s", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "10", "s", "10 s", "-1s", "1.2.3s", "10sec", "99999999999999999999h"] {
            let error = duration(bad).expect_err(bad);
            assert!(error.contains(bad) && error.contains("10s"), "{error}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        for (text, bytes) in [("0", 0), ("17", 17), ("2KiB", 2048), ("16 MiB", 16 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_as_precisely_as_people_need() {
        let shown = [420, 17_312, 245_000, 7_381_000].map(Duration::from_millis).map(show_duration);
        assert_eq!(shown, ["0.42 s", "17.3 s", "4 min 05 s", "2 h 03 min"]);
    }
}
