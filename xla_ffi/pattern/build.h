// Builds a pattern's arrays from a boolean mask.
#ifndef SPARSEJAX_PATTERN_BUILD_H_
#define SPARSEJAX_PATTERN_BUILD_H_

#include <cstdint>
#include <vector>

namespace sparsejax {

struct PatternArrays {
  std::vector<int32_t> indptr, indices, indptr_t, indices_t, perm_t;
};

// `mask` is (columns, rows) in C order. Throws std::invalid_argument if it has more than nse true entries, or if a size
// is beyond int32. The first pass counts the entries, the second stores them. It visits columns in order, so the
// entries of every row are sorted, and the order of the visits is that of the transposed orientation.
PatternArrays BuildPattern(const bool* mask, int64_t columns, int64_t rows, int64_t nse);

}  // namespace sparsejax

#endif  // SPARSEJAX_PATTERN_BUILD_H_
