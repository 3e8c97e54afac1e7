//! Dates that people write, and the instants that follow from them in a time zone.
//!
//! A date without a time counts to the end of that day in the zone. Periods are calendar arithmetic there: 29 February and a year is
//! 28 February, the last of a month stays within the next, and a day is a day, however many hours daylight saving leaves it.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Longest text that is looked at as a date.
const LONGEST: usize = 64;
/// The years in which a document's dates may be. What is outside is a slip or an attack, and arithmetic never leaves the calendar.
const YEARS: std::ops::RangeInclusive<i16> = 1900..=2299;

/// A date as somebody wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A whole day.
    Day(Date),
    /// A time of day without a zone: it is the resource's.
    Local(DateTime),
    /// An instant.
    Instant(Timestamp),
}

/// Why a text is no usable date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDate {
    /// There is none.
    Missing,
    /// It is no date of ISO 8601.
    Unreadable,
    /// It is outside of the years that count.
    OutOfRange,
}

impl fmt::Display for NoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the date is missing",
            Self::Unreadable => "the date cannot be read; write it as 2027-01-31",
            Self::OutOfRange => "the date is out of range",
        })
    }
}

impl Moment {
    /// Reads `2027-01-31`, `2027-01-31T12:00` or an RFC 3339 time. Blanks around it are passed over.
    pub fn parse(text: &str) -> Result<Self, NoDate> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NoDate::Missing);
        }
        if text.len() > LONGEST || !text.is_ascii() {
            return Err(NoDate::Unreadable);
        }
        let moment = if text.len() == 10 {
            text.parse().map(Self::Day).map_err(|_| NoDate::Unreadable)?
        } else if let Ok(instant) = text.parse::<Timestamp>() {
            Self::Instant(instant)
        } else if text.contains('T') {
            text.parse().map(Self::Local).map_err(|_| NoDate::Unreadable)?
        } else {
            return Err(NoDate::Unreadable);
        };
        let year = match moment {
            Self::Day(day) => day.year(),
            Self::Local(time) => time.year(),
            Self::Instant(instant) => instant.to_zoned(TimeZone::UTC).year(),
        };
        if YEARS.contains(&year) { Ok(moment) } else { Err(NoDate::OutOfRange) }
    }

    /// The instant at which it is over: the first of the next day for a whole day.
    pub fn end(self, zone: &TimeZone) -> Result<Timestamp, NoDate> {
        match self {
            Self::Day(day) => {
                let next = day.tomorrow().map_err(|_| NoDate::OutOfRange)?;
                Ok(next.to_zoned(zone.clone()).map_err(|_| NoDate::OutOfRange)?.timestamp())
            }
            Self::Local(time) => Ok(time.to_zoned(zone.clone()).map_err(|_| NoDate::OutOfRange)?.timestamp()),
            Self::Instant(instant) => Ok(instant),
        }
    }

    /// The end of `period` that starts here.
    pub fn end_after(self, period: Span, zone: &TimeZone) -> Result<Timestamp, NoDate> {
        let out = |_: jiff::Error| NoDate::OutOfRange;
        match self {
            Self::Day(day) => Self::Day(day.checked_add(period).map_err(out)?).end(zone),
            Self::Local(time) => Self::Local(time.checked_add(period).map_err(out)?).end(zone),
            Self::Instant(instant) => shift(instant, period, zone).ok_or(NoDate::OutOfRange),
        }
    }
}

/// `instant` and a calendar period (negative: before it) in the zone; `None` outside of the calendar.
pub fn shift(instant: Timestamp, period: Span, zone: &TimeZone) -> Option<Timestamp> {
    Some(instant.to_zoned(zone.clone()).checked_add(period).ok()?.timestamp())
}

/// A period such as `P24M`: years, months, weeks and days, none of them negative.
pub fn period(text: &str) -> Option<Span> {
    if !text.starts_with('P') || text.contains('T') {
        return None;
    }
    let span: Span = text.parse().ok()?;
    (!span.is_negative()).then_some(span)
}

/// The zone of this IANA name.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn end(date: &str, plus: &str, name: &str) -> Timestamp {
        Moment::parse(date).unwrap().end_after(period(plus).unwrap(), &zone(name).unwrap()).unwrap()
    }

    #[test]
    fn a_date_counts_to_the_end_of_that_day_where_the_resource_is() {
        for (zone_name, instant) in [
            ("UTC", "2027-02-01T00:00:00Z"),
            ("Europe/Berlin", "2027-01-31T23:00:00Z"),
            ("America/New_York", "2027-02-01T05:00:00Z"),
            ("Asia/Kolkata", "2027-01-31T18:30:00Z"),
            ("Pacific/Kiritimati", "2027-01-31T10:00:00Z"),
        ] {
            let zone = zone(zone_name).unwrap();
            assert_eq!(Moment::parse("2027-01-31").unwrap().end(&zone), Ok(at(instant)), "{zone_name}");
        }
    }

    #[test]
    fn g8_leap_days_and_month_ends_stay_within_the_month() {
        for (date, plus, over) in [
            ("2024-02-29", "P1Y", "2025-03-01T00:00:00Z"),
            ("2024-02-29", "P4Y", "2028-03-01T00:00:00Z"),
            ("2023-02-28", "P1Y", "2024-02-29T00:00:00Z"),
            ("2027-01-31", "P1M", "2027-03-01T00:00:00Z"),
            ("2028-01-31", "P1M", "2028-03-01T00:00:00Z"),
            ("2027-08-31", "P18M", "2029-03-01T00:00:00Z"),
            ("2026-03-15", "P24M", "2028-03-16T00:00:00Z"),
            ("2026-12-31", "P1D", "2027-01-02T00:00:00Z"),
            ("2026-12-31", "P1W", "2027-01-08T00:00:00Z"),
        ] {
            assert_eq!(end(date, plus, "UTC"), at(over), "{date} {plus}");
        }
    }

    #[test]
    fn daylight_saving_changes_hours_and_no_days() {
        // The night of 28 March 2027 has 23 hours in Berlin, that of 31 October 25.
        assert_eq!(end("2027-03-27", "P1D", "Europe/Berlin"), at("2027-03-28T22:00:00Z"));
        assert_eq!(end("2027-10-30", "P1D", "Europe/Berlin"), at("2027-10-31T23:00:00Z"));
        let noon = Moment::parse("2027-03-27T12:00").unwrap();
        let berlin = zone("Europe/Berlin").unwrap();
        assert_eq!(noon.end_after(period("P1D").unwrap(), &berlin), Ok(at("2027-03-28T10:00:00Z")));
        // Midnight does not exist there on that day: the day before ends where the clock goes on.
        assert_eq!(end("2018-11-03", "P0D", "America/Sao_Paulo"), at("2018-11-04T03:00:00Z"));
        // 30 December 2011 does not exist in Samoa at all.
        assert_eq!(end("2011-12-29", "P0D", "Pacific/Apia"), at("2011-12-30T10:00:00Z"));
    }

    #[test]
    fn what_is_no_date_is_refused_however_it_is_written() {
        for (text, why) in [
            ("", NoDate::Missing),
            ("   ", NoDate::Missing),
            ("31.01.2027", NoDate::Unreadable),
            ("2027-02-30", NoDate::Unreadable),
            ("2027-13-01", NoDate::Unreadable),
            ("tomorrow", NoDate::Unreadable),
            ("2027-01-31T25:00", NoDate::Unreadable),
            ("２０２７-01-31", NoDate::Unreadable),
            ("9999-12-31", NoDate::OutOfRange),
            ("0001-01-01", NoDate::OutOfRange),
            ("-009998-01-01T00:00:00Z", NoDate::OutOfRange),
        ] {
            assert_eq!(Moment::parse(text), Err(why), "{text}");
        }
        assert_eq!(Moment::parse(&"9".repeat(1024)), Err(NoDate::Unreadable));
        for text in ["P", "P1DT1H", "-P1D", "1 day", "P-1D", "PT5S"] {
            assert!(period(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_longest_periods_never_leave_the_calendar() {
        let last = Moment::parse("2299-12-31").unwrap();
        for name in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            let result = last.end_after(period("P9999Y9999M9999W9999D").unwrap(), &zone(name).unwrap());
            assert_eq!(result, Err(NoDate::OutOfRange));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_date_or_a_reason(text in "\\PC{0,80}") {
            let _ = Moment::parse(&text);
        }

        #[test]
        fn a_later_day_and_a_longer_period_never_end_earlier(
            day in 0..140_000i32, more in 0..1000i32, months in 0..1200i64, extra in 0..36i64, which in 0..4usize,
        ) {
            let zone = zone(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"][which]).unwrap();
            let first: Date = "1900-01-01".parse().unwrap();
            let day = first.checked_add(Span::new().days(day)).unwrap();
            let later = day.checked_add(Span::new().days(more)).unwrap();
            let end = |day: Date, months: i64| Moment::Day(day).end_after(Span::new().months(months), &zone).unwrap();
            prop_assert!(end(day, months) <= end(later, months));
            prop_assert!(end(day, months) <= end(day, months + extra));
        }
    }
}
