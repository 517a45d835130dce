// How work is cut. Sums are cut by sizes and nonzeros only, never by the number of threads; what is not added up (rows,
// places) may be cut by threads too, as it changes no result.
#ifndef SPARSEJAX_PLAN_PARTITION_H_
#define SPARSEJAX_PLAN_PARTITION_H_

#include <algorithm>
#include <cstdint>

namespace sparsejax {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Product of non-negative numbers that stops at a bound instead of wrapping round.
inline int64_t SaturatingMul(int64_t a, int64_t b) {
  constexpr int64_t kMost = int64_t{1} << 60;
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? kMost : std::min(product, kMost);
}

// Bytes of packed input that one task works on: half of a 1 MiB second-level cache leaves room for the outputs, the
// pattern and the values.
constexpr int64_t kTileBytes = 512 * 1024;

// Bytes of packed input that a pass works on where passes pay: what a 32 KiB first-level cache holds beside a few rows.
constexpr int64_t kPassBytes = 30 * 1024;

// Results of so many bytes leave the caches before anything reads them: they are written around them.
constexpr int64_t kStreamBytes = 4 << 20;

// Tasks per call, where there is enough work and cutting changes results: a few per core of an ordinary machine.
constexpr int64_t kWantedTasks = 16;

// The same where it does not: every cut costs packing again what both parts read.
constexpr int64_t WantedTasks(int64_t threads) { return threads <= 1 ? 1 : 4 * threads; }

// Tasks per unit, each with a part of its rows: more than one only where there are few units, and as many as repay
// packing the unit for each (`repaid`) or as keep every thread busy. A few less, if all threads then get as many.
inline int64_t RowParts(int64_t units, int64_t repaid, int64_t rows, int64_t threads) {
  units = std::max<int64_t>(1, units);
  const int64_t wanted = CeilDiv(WantedTasks(threads), units), busy = CeilDiv(threads, units);
  const int64_t parts = std::clamp<int64_t>(std::max(repaid, busy), 1, std::clamp<int64_t>(rows, 1, wanted));
  for (int64_t fewer = parts; fewer >= busy; --fewer)
    if (units * fewer % threads == 0) return fewer;
  return parts;
}

// The range [begin, end) that part `i` of `parts` takes of n items, as equal as possible.
struct Range {
  int64_t begin, end;
};
inline Range Part(int64_t n, int64_t parts, int64_t i) { return {n * i / parts, n * (i + 1) / parts}; }

// Rows of part `i` of `parts`, with equal shares of entries plus rows (an empty row still has to be written).
inline Range RowsOfPart(const int32_t* row_ptr, int64_t rows, int64_t parts, int64_t i) {
  if (parts == 1) return {0, rows};
  const int64_t total = row_ptr[rows] + rows;
  const auto first = [&](int64_t part) {
    const int64_t target = total * part / parts;
    int64_t low = 0, high = rows;
    while (low < high) {
      const int64_t mid = (low + high) / 2;
      (row_ptr[mid] + mid < target) ? low = mid + 1 : high = mid;
    }
    return low;
  };
  return {i == 0 ? 0 : first(i), i + 1 == parts ? rows : first(i + 1)};
}

// Private copies of the weight gradient, one per concurrent group of tiles: bounded in number and in bytes. Clearing a
// copy and adding it up costs an entry as much as a few vectors of its sum: `vectors` is how many a sum has in all. A
// power of two, so that threads, which mostly are one too, get as many.
inline int64_t GradientSlots(int64_t tiles, int64_t vectors, int64_t nse, int64_t element_bytes) {
  constexpr int64_t kSlotBytes = 64 << 20, kVectorsPerSlot = 16;
  const int64_t affordable = kSlotBytes / std::max<int64_t>(1, nse * element_bytes);
  const int64_t most = std::min({tiles, kWantedTasks, vectors / kVectorsPerSlot, affordable});
  int64_t slots = 1;
  while (2 * slots <= most) slots *= 2;
  return slots;
}

// The tasks of a weight gradient. A slot's items (tiles, blocks of the batch) are added to its sums one after another.
// Rows are cut into groups, as many as keep every thread busy; a group goes through all items of a slot, on one thread
// if it can, because a thread packs an item once for all of its rows. A group's rows are cut into parts, so that a thread
// that has nothing left to do can take some.
struct SlotTasks {
  int64_t items, slots, groups, parts;

  // `repaid` parts of the rows, at most, repay packing an item for each of them.
  static SlotTasks Make(int64_t items, int64_t slots, int64_t repaid, int64_t rows, int64_t threads) {
    const int64_t groups = std::clamp<int64_t>(CeilDiv(threads, slots), 1, std::max<int64_t>(1, rows));
    const int64_t wanted = CeilDiv(WantedTasks(threads), slots * groups);
    return {items, slots, groups, std::clamp<int64_t>(std::min(repaid, rows) / groups, 1, wanted)};
  }

  int64_t steps() const { return CeilDiv(items, slots); }
  int64_t unit() const { return steps() * parts; }  // tasks of a group and slot
  int64_t tasks() const { return slots * groups * unit(); }
  int64_t row_parts() const { return groups * parts; }

  // The part of all row_parts() that a task has, and its item: none where a slot has fewer than others.
  int64_t Slot(int64_t task) const { return task / unit() / groups; }
  int64_t RowPart(int64_t task) const { return task / unit() % groups * parts + task % parts; }
  bool IsFirst(int64_t task) const { return task % unit() < parts; }
  Range Items(int64_t task) const {
    const Range all = Part(items, slots, Slot(task));
    const int64_t item = all.begin + task % unit() / parts;
    return {item, std::min(item + 1, all.end)};
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_PARTITION_H_
