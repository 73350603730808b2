//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `90s`, `10m`, `2h` or `30d`: a whole number and a unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads `512KiB`, `25MiB` or `1000B`: a whole number and a unit.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    usize::try_from(number.checked_mul(bytes)?).ok()
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_a_unit_that_is_known() {
        let table = [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("0s", Some(0)),
            ("10 m", Some(600)),
            ("30d", Some(2_592_000)),
        ];
        for (text, seconds) in table {
            assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
        }
        for bad in ["", "10", "m", "-1s", "1.5h", "1w", "10M", "99999999999999999999h", "18446744073709551615h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        let table =
            [("25MiB", Some(25 << 20)), ("512KiB", Some(512 << 10)), ("7B", Some(7)), ("25MB", None), ("25", None)];
        for (text, bytes) in table {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
