bitflags::bitflags! {
    /// The flags of a descriptor (DSA §8.1). Those from bit 16 on mean something else to each operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u32 {
        /// In a batch: wait for the descriptors before it.
        const FENCE = 0x0001;
        /// Wait for pages instead of failing.
        const BLOCK_ON_FAULT = 0x0002;
        /// There is a completion record address.
        const RECORD_ADDRESS_VALID = 0x0004;
        /// Write the completion record on success too.
        const REQUEST_RECORD = 0x0008;
        /// Fire the interrupt of the handle on completion.
        const REQUEST_INTERRUPT = 0x0010;
        /// Steering of the completion record.
        const RECORD_STEERING = 0x0020;
        /// Report whether the result is the expected one.
        const CHECK_RESULT = 0x0080;
        /// Hint: write to the cache.
        const CACHE_CONTROL = 0x0100;
        /// Traffic class of the first address.
        const FIRST_CLASS = 0x0200;
        /// Traffic class of the second address.
        const SECOND_CLASS = 0x0400;
        /// Traffic class of the third address.
        const THIRD_CLASS = 0x0800;
        /// Traffic class of the completion record.
        const RECORD_CLASS = 0x1000;
        /// Strict ordering of writes.
        const STRICT_ORDER = 0x2000;
        /// Read the destination back.
        const DESTINATION_READBACK = 0x4000;
        /// Steering of writes.
        const DESTINATION_STEERING = 0x8000;
        /// CRC: the seed is in memory.
        const READ_CRC_SEED = 0x01_0000;
        /// CRC: seed and result are neither inverted nor in reflected bit order.
        const BYPASS_CRC_INVERSION = 0x02_0000;
        /// CRC: the highest bit of a data byte is the first.
        const BYPASS_DATA_REFLECTION = 0x04_0000;
        /// Fill: the pattern has 16 bytes.
        const WIDE_PATTERN = 0x04_0000;
    }
}
