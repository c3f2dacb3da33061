//! Counts of what the seeds contained, and the floors below which they mean nothing.

/// What one or more runs contained.
pub trait Tally: Default + Copy + Send + std::fmt::Display {
    /// Adds another run's.
    fn add(&mut self, other: &Self);

    /// What there was too little of in `seeds` runs: name, count and floor. The floors are set for 200 seeds.
    fn too_few(&self, seeds: u64) -> Vec<(&'static str, u64, u64)>;
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $floor:literal,)*) => {
        /// What happened in one or more runs.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $crate::sim::Tally for Counts {
            fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
            }

            fn too_few(&self, seeds: u64) -> Vec<(&'static str, u64, u64)> {
                let all = [$((stringify!($name), self.$name, $floor * seeds / 200),)*];
                all.into_iter().filter(|(_, count, floor)| count < floor).collect()
            }
        }

        impl std::fmt::Display for Counts {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $(writeln!(f, "{:>12}  {}", self.$name, stringify!($name).replace('_', " "))?;)*
                Ok(())
            }
        }
    };
}

pub(super) use counts;
