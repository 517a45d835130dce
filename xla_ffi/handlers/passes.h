// A product in several passes over the source, each adding to the sums of the last.
#ifndef SPARSEJAX_HANDLERS_PASSES_H_
#define SPARSEJAX_HANDLERS_PASSES_H_

#include <cstdint>
#include <type_traits>

#include "../runtime/scratch.h"
#include "../simd/table.h"

namespace sparsejax {

// Rows of the destination that go through all passes together: their sums in between, packed in scratch, and what they
// read of the source stay in cache.
constexpr int64_t kRowGroup = 128;

// Bytes of sums in between that share the second-level cache with what a pass reads.
constexpr int64_t kPartialBytes = 512 * 1024;

// Runs the kernel for every pass with the program that program(pass) returns; the last writes where `args` say.
template <typename Args, typename Program>
void RunPasses(void (*kernel)(const Args&), Args args, int64_t lanes, int64_t passes, const Program& program) {
  using T = std::remove_pointer_t<decltype(args.y)>;
  Args inner = args;
  inner.stream = false;
  if (passes > 1) {
    inner.y_vec_stride = lanes;
    inner.y_row_stride = args.vecs * lanes;
    inner.y = Scratch::Local(Scratch::kPartial).Get<T>((args.row_end - args.row_begin) * inner.y_row_stride);
    args.init = inner.y;
  }
  for (int64_t pass = 0; pass + 1 < passes; ++pass) {
    inner.program = program(pass);
    kernel(inner);
    inner.init = inner.y;
  }
  args.program = program(passes - 1);
  kernel(args);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_PASSES_H_
