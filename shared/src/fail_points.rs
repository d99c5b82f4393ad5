//! Injects faults at named points, for tests with a real process: it aborts or waits, or a call of the system fails. Does
//! nothing unless built with the feature `fail-points`: a release binary reads none of the variables.
//!
//! Each crate lists its points in an enum made by [`fail_points!`](crate::fail_points!), so that a test can drive every one.

use std::io;

/// Defines an enum of points. Each has a name, unique in the program, by which a test asks for a fault.
#[macro_export]
macro_rules! fail_points {
    ($(#[$meta:meta])* $visible:vis enum $points:ident { $($(#[$doc:meta])* $point:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visible enum $points { $($(#[$doc])* $point,)+ }

        impl $points {
            /// All points, in order.
            pub const ALL: &[$points] = &[$($points::$point,)+];

            /// Returns the name of the point.
            pub const fn name(self) -> &'static str {
                match self { $($points::$point => $name,)+ }
            }

            /// Aborts the process if a test asks for it at this point.
            pub fn reach(self) {
                $crate::fail_points::reach(self.name());
            }

            /// Aborts the process, or returns the error of a system call, if a test asks for it at this point.
            pub fn check(self) -> std::io::Result<()> {
                $crate::fail_points::check(self.name())
            }
        }
    };
}

/// Aborts the process if a test asks for it at `point`.
pub fn reach(point: &'static str) {
    #[cfg(feature = "fail-points")]
    enabled::reach(point);
    #[cfg(not(feature = "fail-points"))]
    let _ = point;
}

/// Aborts the process, or returns the error of a system call, if a test asks for it at `point`.
pub fn check(point: &'static str) -> io::Result<()> {
    #[cfg(feature = "fail-points")]
    return enabled::check(point);
    #[cfg(not(feature = "fail-points"))]
    {
        let _ = point;
        Ok(())
    }
}

#[cfg(feature = "fail-points")]
mod enabled {
    use std::fs;
    use std::io;
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Names the point at which the process aborts, as `name`, or as `name:n` for the n-th time it is reached.
    const FAIL_AT_VARIABLE: &str = "TRUEUP_FAIL_AT";
    /// Names the point at which a thread waits each time, as `name:milliseconds`.
    const WAIT_AT_VARIABLE: &str = "TRUEUP_WAIT_AT";
    /// Names a file that holds the faults of the moment, one per line: `name:errno`, or `name:abort`. A name that ends
    /// with `*` stands for all points that begin like it.
    const FAULTS_VARIABLE: &str = "TRUEUP_FAULTS";

    static ABORT: LazyLock<Option<Abort>> =
        LazyLock::new(|| std::env::var(FAIL_AT_VARIABLE).ok().map(|text| Abort::parse(&text)));
    static WAIT: LazyLock<Option<(String, Duration)>> =
        LazyLock::new(|| std::env::var(WAIT_AT_VARIABLE).ok().and_then(|text| parse_wait(&text)));
    static FAULTS: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(FAULTS_VARIABLE).map(PathBuf::from));

    /// The point at which the process aborts.
    struct Abort {
        point: String,
        /// How often it is still reached without effect.
        passes: AtomicU64,
    }

    impl Abort {
        fn parse(text: &str) -> Abort {
            let counted = text.split_once(':').and_then(|(point, nth)| Some((point, nth.parse::<u64>().ok()?)));
            let (point, nth) = counted.unwrap_or((text, 1));
            Abort { point: point.to_owned(), passes: AtomicU64::new(nth.saturating_sub(1)) }
        }

        fn is_due(&self, point: &str) -> bool {
            let pass = |left: u64| left.checked_sub(1);
            self.point == point && self.passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pass).is_err()
        }
    }

    fn parse_wait(text: &str) -> Option<(String, Duration)> {
        let (point, wait_ms) = text.split_once(':')?;
        Some((point.to_owned(), Duration::from_millis(wait_ms.parse().ok()?)))
    }

    pub(super) fn reach(point: &'static str) {
        if let Some((_, wait)) = WAIT.as_ref().filter(|(at, _)| at == point) {
            std::thread::sleep(*wait);
        }
        if ABORT.as_ref().is_some_and(|abort| abort.is_due(point)) || fault(point).as_deref() == Some("abort") {
            tracing::error!(point, "aborting at an injected fault");
            std::process::abort();
        }
    }

    pub(super) fn check(point: &'static str) -> io::Result<()> {
        reach(point);
        match fault(point).and_then(|errno| errno.parse().ok()) {
            Some(errno) => {
                tracing::warn!(point, errno, "injecting an error");
                Err(io::Error::from_raw_os_error(errno))
            }
            None => Ok(()),
        }
    }

    /// Returns the fault that a test asks for at `point` now.
    fn fault(point: &str) -> Option<String> {
        fault_in(&fs::read_to_string(FAULTS.as_ref()?).ok()?, point)
    }

    fn fault_in(faults: &str, point: &str) -> Option<String> {
        faults.lines().find_map(|line| {
            let (name, fault) = line.split_once(':')?;
            let is_meant = name.strip_suffix('*').map_or(name == point, |start| point.starts_with(start));
            is_meant.then(|| fault.to_owned())
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_nth_time_counts_and_other_points_do_not() {
            let abort = Abort::parse("log-sync:3");
            let due: Vec<bool> = ["log-sync", "log-write", "log-sync", "log-sync"].map(|at| abort.is_due(at)).to_vec();
            assert_eq!(due, [false, false, false, true]);
            assert!(Abort::parse("plan").is_due("plan"));
        }

        #[test]
        fn a_line_names_a_point_or_the_start_of_several() {
            let faults = "log-sync:5\nlake-*:28\n";
            assert_eq!(fault_in(faults, "log-sync").as_deref(), Some("5"));
            assert_eq!(fault_in(faults, "lake-write").as_deref(), Some("28"));
            assert_eq!(fault_in(faults, "log-sync-folder"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    crate::fail_points! {
        /// Points of this test.
        enum Point {
            First = "first",
            Second = "second",
        }
    }

    #[test]
    fn a_point_has_its_name_and_does_nothing_unless_asked() {
        assert_eq!(Point::ALL.iter().map(|point| point.name()).collect::<Vec<_>>(), ["first", "second"]);
        Point::First.reach();
        Point::Second.check().expect("no fault");
    }
}
