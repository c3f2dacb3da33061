//! Where the table's arrays live: one anonymous mapping each, zeroed by the kernel.
//!
//! A `Vec` of 64-byte aligned elements would be written through at start, and a plain one would
//! straddle cache lines. A mapping is aligned to pages, reads as zeros, becomes resident only where
//! it was used, and can ask for huge pages: without them nearly every access to a large table
//! also misses the TLB. The length never changes.

use super::TableError;
use memmap2::MmapMut;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A fixed number of elements, all zero at first.
pub(crate) struct Lines<T> {
    map: MmapMut,
    element: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Lines<T> {
    /// Reserves `len` (at least 1) zeroed elements. Fails when the kernel does not grant the memory.
    pub(crate) fn zeroed(len: usize) -> Result<Self, TableError> {
        let bytes = len.saturating_mul(size_of::<T>());
        let map = MmapMut::map_anon(bytes).map_err(|source| TableError::Memory { bytes, source })?;
        // Only a wish: without huge pages the table is slower, not wrong.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Lines { map, element: PhantomData })
    }

    /// Makes all elements resident now. On a kernel that cannot (before Linux 5.14) they become so
    /// where they are used.
    pub(crate) fn make_resident(&self) -> Result<(), TableError> {
        #[cfg(target_os = "linux")]
        if let Err(source) = self.map.advise(memmap2::Advice::PopulateWrite)
            && source.kind() != std::io::ErrorKind::InvalidInput
        {
            return Err(TableError::Memory { bytes: self.bytes(), source });
        }
        Ok(())
    }

    /// All elements.
    #[inline]
    pub(crate) fn all(&self) -> &[T] {
        // A mapping is aligned to pages and holds a whole number of elements.
        <[T]>::ref_from_bytes(&self.map).expect("a mapping of whole, aligned elements")
    }

    /// All elements, writable.
    #[inline]
    pub(crate) fn all_mut(&mut self) -> &mut [T] {
        <[T]>::mut_from_bytes(&mut self.map).expect("a mapping of whole, aligned elements")
    }

    /// Bytes of address space.
    pub(crate) fn bytes(&self) -> usize {
        self.map.len()
    }
}
