// A product in several passes over the source, each of which adds to the sums of the previous one.
#ifndef SPARSEJAX_HANDLERS_PASSES_H_
#define SPARSEJAX_HANDLERS_PASSES_H_

#include <cstdint>
#include <type_traits>

#include "../plan/cache_model.h"
#include "../runtime/scratch.h"
#include "../simd/table.h"

namespace sparsejax {

// Rows of the destination that are computed in all passes before the next rows are. Their partial sums, packed in
// scratch, and their input then stay in cache.
constexpr int64_t kRowGroup = 128;

// Runs the kernel once per pass, with the program program(pass). The last pass writes to the result in `args`, the
// others to scratch.
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
