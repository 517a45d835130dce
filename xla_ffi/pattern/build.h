// Host construction of a pattern's arrays from a boolean mask.
#ifndef SPARSEJAX_PATTERN_BUILD_H_
#define SPARSEJAX_PATTERN_BUILD_H_

#include <cstdint>
#include <vector>

namespace sparsejax {

struct PatternArrays {
  std::vector<int32_t> indptr, indices, indptr_t, indices_t, perm_t;
};

// `mask` is (columns, rows) in C order, with at most nse true entries. One pass counts, one places: columns are walked
// in order, so the entries of every row come out sorted, and the walk itself is the transposed orientation.
PatternArrays BuildPattern(const bool* mask, int64_t columns, int64_t rows, int64_t nse);

}  // namespace sparsejax

#endif  // SPARSEJAX_PATTERN_BUILD_H_
