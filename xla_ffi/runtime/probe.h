// Highest rates of the calling thread in the instruction set in use, for the benchmarks.
#ifndef SPARSEJAX_RUNTIME_PROBE_H_
#define SPARSEJAX_RUNTIME_PROBE_H_

#include <cstdint>

namespace sparsejax {

// float32 flop/s of fused multiply-adds in registers, the best slice of a run of `seconds`.
double FmaRate(double seconds);

// Bytes per second of reading a buffer of `bytes` (rounded up to 512) over and over, the best slice of a run of
// `seconds` after one pass that brings it into the caches it fits.
double ReadRate(int64_t bytes, double seconds);

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PROBE_H_
