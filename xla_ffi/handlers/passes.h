// A product in several passes over the source, each of which adds to the sums of the previous one.
#ifndef SPARSEJAX_HANDLERS_PASSES_H_
#define SPARSEJAX_HANDLERS_PASSES_H_

#include <cstdint>
#include <type_traits>

#include "../plan/cache_model.h"
#include "../plan/partition.h"
#include "../runtime/scratch.h"
#include "../simd/table.h"

namespace sparsejax {

// Rows of the destination that are computed in all passes before the next rows are. Their partial sums, packed in
// scratch, and their input then stay in cache.
constexpr int64_t kRowGroup = 128;

// Rows of a convolution's row-major result that are computed in scratch before they are stored: two cache lines of
// floats.
constexpr int64_t kStagedRows = 32;

// The arguments for some of the rows of `args`, numbered from the first of them. All but `y`, which stays the same.
template <typename S>
SpmmArgs<S> RowsOf(SpmmArgs<S> args, Range rows) {
  if (args.init != nullptr) args.init += rows.begin * args.y_row_stride;
  args.row_end = args.row_begin + rows.end;
  args.row_begin += rows.begin;
  return args;
}
template <typename S>
BackwardArgs<S> RowsOf(BackwardArgs<S> args, Range rows) {
  static_cast<SpmmArgs<S>&>(args) = RowsOf<S>(static_cast<const SpmmArgs<S>&>(args), rows);
  args.tile += rows.begin * args.tile_row_stride;
  return args;
}

// Runs the kernel once per pass, with the program program(pass). The passes but the last one write to scratch. `last`
// runs the last one.
template <typename Args, typename Program, typename Last>
void RunPasses(void (*kernel)(const Args&), Args args, int64_t lanes, int64_t passes, const Program& program,
               const Last& last) {
  using S = std::remove_pointer_t<decltype(args.y)>;
  Args inner = args;
  if (passes > 1) {
    const int64_t rows = args.row_end - args.row_begin;
    inner.sums = Scratch::Local(Scratch::kPartial).Get<Sum<S>>(rows * args.vecs * lanes);
    args.init = inner.sums;
  }
  for (int64_t pass = 0; pass + 1 < passes; ++pass) {
    inner.program = program(pass);
    kernel(inner);
    inner.init = inner.sums;
  }
  args.program = program(passes - 1);
  last(args);
}

// The same where the last pass writes to the result in `args`.
template <typename Args, typename Program>
void RunPasses(void (*kernel)(const Args&), Args args, int64_t lanes, int64_t passes, const Program& program) {
  RunPasses(kernel, args, lanes, passes, program, [&](const Args& last) { kernel(last); });
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_PASSES_H_
