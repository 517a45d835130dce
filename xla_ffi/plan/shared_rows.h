// Patterns of blocks, in which neighbouring rows have the same entries.
#ifndef SPARSEJAX_PLAN_SHARED_ROWS_H_
#define SPARSEJAX_PLAN_SHARED_ROWS_H_

#include <algorithm>
#include <cstdint>

namespace sparsejax {

// The most rows of a group that kernels compute together.
constexpr int64_t kMostSharedRows = 4;

// Whether each group of `size` rows has the same entries in all of its rows.
inline bool AreShared(const int32_t* row_ptr, const int32_t* indices, int64_t rows, int64_t size) {
  if (rows % size != 0) return false;
  for (int64_t r = 0; r < rows; ++r) {
    if (r % size == 0) continue;
    const int32_t* before = indices + row_ptr[r - 1];
    const int32_t* begin = indices + row_ptr[r];
    if (!std::equal(before, begin, begin, indices + row_ptr[r + 1])) return false;
  }
  return true;
}

// The size of the groups of neighbouring rows with the same entries, which is 4, 2 or, where there are none, 1. It
// reads little of a pattern without blocks, because the first group decides.
inline int64_t SharedRows(const int32_t* row_ptr, const int32_t* indices, int64_t rows) {
  for (int64_t size = kMostSharedRows; size > 1; size /= 2)
    if (AreShared(row_ptr, indices, rows, size)) return size;
  return 1;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_SHARED_ROWS_H_
