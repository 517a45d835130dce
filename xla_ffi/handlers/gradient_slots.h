// The output of a weight gradient: private partial sums per slot, added in the order of the slots at the end.
#ifndef SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
#define SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_

#include <algorithm>
#include <memory>

#include "types.h"

namespace sparsejax {

template <typename S>
class Slots {
 public:
  // `out` has nse elements, of which the first nnz are entries and the rest padding. Zeroes the partial sums.
  Slots(S* out, int64_t nse, int64_t nnz, int64_t slots) : out_(out), nse_(nse), nnz_(nnz), slots_(slots) {
    const int64_t n = slots * nnz;
    partial_ = std::shared_ptr<Sum<S>[]>(new Sum<S>[std::max<int64_t>(n, 1)]());
  }

  Sum<S>* slot(int64_t s) const { return partial_.get() + s * nnz_; }

  // Adds the slots, converts, and zeroes the padding.
  void Finish() const {
    Element<S>::Kernels().add_slots(partial_.get(), nnz_, slots_, nnz_);
    Element<S>::Storage().store_rows(partial_.get(), 1, nnz_, nnz_, out_, nnz_);
    std::fill(out_ + nnz_, out_ + nse_, S{});
  }

 private:
  S* out_;
  int64_t nse_, nnz_, slots_;
  std::shared_ptr<Sum<S>[]> partial_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_GRADIENT_SLOTS_H_
