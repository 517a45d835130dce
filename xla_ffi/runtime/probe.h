// The highest rates of the calling thread with the instruction set in use. The benchmarks compare with them.
#ifndef SPARSEJAX_RUNTIME_PROBE_H_
#define SPARSEJAX_RUNTIME_PROBE_H_

#include <cstdint>

namespace sparsejax {

// float32 flop/s of fused multiply-adds in registers: the best slice in a run of `seconds`.
double FmaRate(double seconds);

// Bytes per second of reading a buffer of `bytes` (rounded up to 512) again and again: the best slice in a run of
// `seconds`, after one pass that loads it into the caches that it fits.
double ReadRate(int64_t bytes, double seconds);

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_PROBE_H_
