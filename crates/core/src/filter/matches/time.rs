//! `-m time`: the time of day, the day of the week or of the month, and dates. UTC.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{number, unsigned};
use core::fmt;

const DAY: u64 = 86_400;
/// iptables' last date.
const LAST_DATE: u64 = i32::MAX as u64;
const ALL_WEEKDAYS: u8 = 0xfe;
const ALL_MONTHDAYS: u32 = 0xffff_fffe;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub date_start: u64,
    pub date_stop: u64,
    /// Seconds since midnight; both ends count.
    pub day_start: u32,
    pub day_stop: u32,
    /// Bit 1 is Monday, bit 7 Sunday.
    pub weekdays: u8,
    /// Bit 1 is the first.
    pub monthdays: u32,
    /// From `day_start` on to `day_stop` of the next day is one stretch.
    pub contiguous: bool,
    /// In the time zone of the kernel, which here is UTC as well.
    pub kernel_zone: bool,
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Hours, minutes or seconds. C reads nothing as 0.
fn clock_part(text: &str) -> Option<u32> {
    let digits = unsigned(text);
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

/// `9:30`, `09:30:05`; `9:` and `:30` as well.
fn parse_clock(text: &str) -> Result<u32, Complaint> {
    let bad = || Complaint::new(format!("`{text}` is not a time of day")).hint("`hh:mm` or `hh:mm:ss`");
    let parts: Vec<u32> = text.split(':').map(clock_part).collect::<Option<_>>().ok_or_else(bad)?;
    match parts[..] {
        [h, m] if h < 24 && m < 60 => Ok(h * 3_600 + m * 60),
        [h, m, s] if h < 24 && m < 60 && s < 60 => Ok(h * 3_600 + m * 60 + s),
        _ => Err(bad()),
    }
}

/// `2026`, `2026-01`, `2026-01-31`, `2026-01-31T12:00:00`; what is left out is the beginning.
fn parse_date(text: &str) -> Result<u64, Complaint> {
    let bad =
        || Complaint::new(format!("`{text}` is not a date")).hint("`YYYY-MM-DDThh:mm:ss`, cut short at will");
    let (date, clock) = text.split_once('T').unwrap_or((text, "0"));
    let mut parts = date.split('-').map(|p| unsigned(p).parse::<i64>().map_err(|_| bad()));
    let mut part = |usual| parts.next().unwrap_or(Ok(usual));
    let (year, month, day) = (part(1970)?, part(1)?, part(1)?);
    let mut parts = clock.split(':').map(|p| clock_part(p).map(u64::from).ok_or_else(bad));
    let mut part = || parts.next().unwrap_or(Ok(0));
    let (hour, minute, second) = (part()?, part()?, part()?);
    let right = (1970..=2038).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !right || hour > 23 || minute > 59 || second > 59 {
        return Err(bad());
    }
    Ok(days_from_civil(year, month, day) as u64 * DAY + hour * 3_600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a day of the Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
const fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month as u32, day as u32)
}

/// Names, the first two letters of names or more, or 1 (Monday) to 7.
fn parse_weekdays(text: &str) -> Result<u8, Complaint> {
    let mut days = 0;
    for word in text.strip_suffix(',').unwrap_or(text).split(',') {
        let by_number = unsigned(word).parse::<u8>().ok().filter(|n| (1..=7).contains(n));
        let by_name =
            || WEEKDAYS.iter().position(|d| word.len() >= 2 && d.as_bytes()[..2] == word.as_bytes()[..2]);
        let Some(day) = by_number.or_else(|| by_name().map(|n| n as u8 + 1)) else {
            let hint = did_you_mean(word, WEEKDAYS).unwrap_or_else(|| "Mon to Sun, or 1 to 7".to_owned());
            return Err(Complaint::new(format!("no day of the week named `{word}`")).hint(hint));
        };
        days |= 1 << day;
    }
    Ok(days)
}

/// Numbers; those of two digits may have an ending, as in `01st` or `22nd`. Nothing between two commas is no day.
fn parse_monthdays(text: &str) -> Result<u32, Complaint> {
    if text.split(',').all(str::is_empty) {
        return Err(Complaint::new("the list of days is empty").hint("1 to 31"));
    }
    text.split(',').filter(|word| !word.is_empty()).try_fold(0, |days, word| match monthday(word) {
        Some(day @ 1..=31) => Ok(days | 1 << day),
        _ => Err(Complaint::new(format!("no day of a month is numbered `{word}`")).hint("1 to 31")),
    })
}

/// Two digits at most, as C reads them: `08` is no number.
fn monthday(word: &str) -> Option<u8> {
    let end = word.find(|c: char| c.is_ascii_lowercase()).unwrap_or(word.len());
    let (digits, ending) = word.split_at(end);
    let day = number(digits, 31).ok().filter(|_| unsigned(digits).len() <= 2)? as u8;
    let fitting = match day % 10 {
        1 if day != 11 => "st",
        2 if day != 12 => "nd",
        3 if day != 13 => "rd",
        _ => "th",
    };
    (ending.is_empty() || (ending == fitting && digits.len() == 2)).then_some(day)
}

impl Matcher for Time {
    const SPEC: Spec = Spec {
        name: "time",
        family: None,
        protos: &[],
        options: &[
            Opt::value("timestart"),
            Opt::value("timestop"),
            Opt::value("weekdays").or_not(),
            Opt::value("monthdays").or_not(),
            Opt::value("datestart"),
            Opt::value("datestop"),
            Opt::flag("contiguous"),
            Opt::flag("utc"),
            Opt::flag("kerneltz"),
            Opt::flag("localtz"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["utc", "kerneltz"])?;
        options.exclusive(&["utc", "localtz"])?;
        let zone = ["kerneltz", "localtz"].iter().find_map(|name| options.get(name));
        if let Some(zone) = zone {
            let problem =
                Problem::new(zone.at, "the router's own time zone is UTC, with and without this option");
            setting.warn(problem.hint("write the times in UTC"));
        }
        let clock = |name, usual| options.get(name).map_or(Ok(usual), |g| g.read(parse_clock));
        let date = |name, usual| options.get(name).map_or(Ok(usual), |g| g.read(parse_date));
        let weekdays = options.get("weekdays").map_or(Ok(ALL_WEEKDAYS), |g| {
            g.read(parse_weekdays).map(|days| if g.negated { ALL_WEEKDAYS & !days } else { days })
        })?;
        let monthdays = options.get("monthdays").map_or(Ok(ALL_MONTHDAYS), |g| {
            g.read(parse_monthdays).map(|days| if g.negated { ALL_MONTHDAYS & !days } else { days })
        })?;
        let it = Self {
            date_start: date("datestart", 0)?,
            date_stop: date("datestop", LAST_DATE)?,
            day_start: clock("timestart", 0)?,
            day_stop: clock("timestop", DAY as u32 - 1)?,
            weekdays,
            monthdays,
            contiguous: options.has("contiguous"),
            kernel_zone: zone.is_some(),
        };
        if it.contiguous && it.day_start < it.day_stop {
            return Err(options
                .problem("`--contiguous` needs a time that goes over midnight")
                .hint("`--timestart 23:00 --timestop 01:00`"));
        }
        Ok(it)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        self.holds_at(view.unix_secs()).into()
    }
}

impl Time {
    fn holds_at(&self, now: u64) -> bool {
        let Self {
            date_start,
            date_stop,
            day_start,
            day_stop,
            weekdays,
            monthdays,
            contiguous,
            kernel_zone: _,
        } = *self;
        if now < date_start || now > date_stop {
            return false;
        }
        let mut day = (now / DAY) as i64;
        let clock = (now % DAY) as u32;
        if day_start < day_stop {
            if clock < day_start || clock > day_stop {
                return false;
            }
        } else {
            if clock < day_start && clock > day_stop {
                return false;
            }
            // What lies behind midnight belongs to the day on which the stretch began.
            if contiguous && clock < day_stop {
                day -= 1;
            }
        }
        let weekday = (day + 3).rem_euclid(7) + 1;
        let (_, _, monthday) = civil_from_days(day);
        weekdays >> weekday & 1 == 1 && monthdays >> monthday & 1 == 1
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |secs: u32| format!("{:02}:{:02}:{:02}", secs / 3_600, secs / 60 % 60, secs % 60);
        let date = |at: u64| {
            let (year, month, day) = civil_from_days((at / DAY) as i64);
            format!("{year:04}-{month:02}-{day:02}T{}", clock((at % DAY) as u32))
        };
        if self.day_start != 0 || self.day_stop != DAY as u32 - 1 {
            write!(f, " --timestart {} --timestop {}", clock(self.day_start), clock(self.day_stop))?;
        }
        if self.monthdays != ALL_MONTHDAYS {
            let days: Vec<String> =
                (1..=31).filter(|d| self.monthdays >> d & 1 == 1).map(|d| d.to_string()).collect();
            write!(f, " --monthdays {}", days.join(","))?;
        }
        if self.weekdays != ALL_WEEKDAYS {
            let days: Vec<&str> =
                (0..7).filter(|d| self.weekdays >> (d + 1) & 1 == 1).map(|d| WEEKDAYS[d]).collect();
            write!(f, " --weekdays {}", days.join(","))?;
        }
        if self.date_start != 0 {
            write!(f, " --datestart {}", date(self.date_start))?;
        }
        // The kernel takes 0 at its word, but the tools take it for none and leave it out.
        if self.date_stop != 0 {
            write!(f, " --datestop {}", date(self.date_stop))?;
        }
        if self.kernel_zone {
            f.write_str(" --kerneltz")?;
        }
        if self.contiguous { f.write_str(" --contiguous") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for days in [0, 58, 59, 60, 789, 11_016, 19_723, 24_855] {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, i64::from(month), i64::from(day)), days);
        }
        assert_eq!(parse_date("2038-01-19T03:14:07"), Ok(LAST_DATE));
        assert_eq!(parse_date("2020"), Ok(1_577_836_800));
    }

    #[test]
    fn a_stretch_over_midnight_may_belong_to_the_day_it_began() {
        let saturday = 2 * DAY;
        let night = |contiguous| Time {
            date_start: 0,
            date_stop: LAST_DATE,
            day_start: 23 * 3_600,
            day_stop: 3_600,
            weekdays: 1 << 5,
            monthdays: ALL_MONTHDAYS,
            contiguous,
            kernel_zone: false,
        };
        assert!(night(false).holds_at(saturday - 1), "Friday, before midnight");
        assert!(!night(false).holds_at(saturday + 60));
        assert!(night(true).holds_at(saturday + 60));
    }
}
