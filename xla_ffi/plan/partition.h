// How work is divided into tasks. The terms of a sum are divided by sizes and numbers of entries only, never by the
// number of threads, so results do not depend on threads. Work that adds nothing up (rows, positions) may be divided
// by threads.
#ifndef SPARSEJAX_PLAN_PARTITION_H_
#define SPARSEJAX_PLAN_PARTITION_H_

#include <algorithm>
#include <cstdint>

#include "shared_rows.h"

namespace sparsejax {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Product of non-negative numbers, limited to 2**60 instead of overflowing.
inline int64_t SaturatingMul(int64_t a, int64_t b) {
  constexpr int64_t kMost = int64_t{1} << 60;
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? kMost : std::min(product, kMost);
}

// Tasks per call where the division changes the order of a sum and so must not depend on the number of threads: a few
// per core of an ordinary machine.
constexpr int64_t kWantedTasks = 16;

// Tasks per call where the division changes no result. One thread gets one task, because each further task packs
// again what it shares with its neighbour; more threads get four tasks each, so that they finish at about the same
// time.
constexpr int64_t WantedTasks(int64_t threads) { return threads <= 1 ? 1 : 4 * threads; }

// Number of tasks that a unit of work is divided into by rows. There is more than one only where there are fewer
// units than wanted tasks; then as many as are worth packing the unit for each (`repaid`), or as keep every thread
// busy. The number is rounded down where that gives all threads the same number of tasks.
inline int64_t RowParts(int64_t units, int64_t repaid, int64_t rows, int64_t threads) {
  units = std::max<int64_t>(1, units);
  const int64_t wanted = CeilDiv(WantedTasks(threads), units), busy = CeilDiv(threads, units);
  const int64_t parts = std::clamp<int64_t>(std::max(repaid, busy), 1, std::clamp<int64_t>(rows, 1, wanted));
  for (int64_t fewer = parts; fewer >= busy; --fewer)
    if (units * fewer % threads == 0) return fewer;
  return parts;
}

// The integers begin <= i < end.
struct Range {
  int64_t begin, end;
};

// Part `i` when n items are divided into `parts` ranges as equal as possible.
inline Range Part(int64_t n, int64_t parts, int64_t i) { return {n * i / parts, n * (i + 1) / parts}; }

// Calls body(part) for parts of a range that end at multiples of `size`.
template <typename Body>
void ForEachPart(Range range, int64_t size, const Body& body) {
  for (int64_t begin = range.begin; begin < range.end;) {
    const int64_t end = std::min(begin / size * size + size, range.end);
    body(Range{begin, end});
    begin = end;
  }
}

// Rows of part `i` when rows are divided into `parts` ranges with about equal numbers of entries plus rows. Rows count
// because an empty row is written too. Parts begin at multiples of kMostSharedRows.
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
    return low / kMostSharedRows * kMostSharedRows;
  };
  return {i == 0 ? 0 : first(i), i + 1 == parts ? rows : first(i + 1)};
}

// Number of slots of a weight gradient: copies of its sums that tasks fill at the same time. The number is limited by
// the memory of all copies (kSlotBytes), and by their cost: clearing a copy and adding it to the result costs an
// entry about as much as a few vectors of its sum, so each slot has to have kVectorsPerSlot of the sum's `vectors`.
// It is a power of two, as numbers of threads mostly are, so that every thread gets as many slots as the others.
inline int64_t GradientSlots(int64_t tiles, int64_t vectors, int64_t nse, int64_t element_bytes) {
  constexpr int64_t kSlotBytes = 64 << 20, kVectorsPerSlot = 16;
  const int64_t affordable = kSlotBytes / std::max<int64_t>(1, nse * element_bytes);
  const int64_t most = std::min({tiles, kWantedTasks, vectors / kVectorsPerSlot, affordable});
  int64_t slots = 1;
  while (2 * slots <= most) slots *= 2;
  return slots;
}

// The tasks of a weight gradient. The items of a slot (tiles, or blocks of the batch) are added to its sums one after
// another. Rows are divided into as many groups as keep every thread busy. One thread takes a group through all items
// of a slot where possible, because it then packs an item once for all rows of the group. The rows of a group are
// divided further into parts, which idle threads can take.
struct SlotTasks {
  int64_t items, slots, groups, parts;

  // At most `repaid` parts of the rows are worth packing an item for each.
  static SlotTasks Make(int64_t items, int64_t slots, int64_t repaid, int64_t rows, int64_t threads) {
    const int64_t groups = std::clamp<int64_t>(CeilDiv(threads, slots), 1, std::max<int64_t>(1, rows));
    const int64_t wanted = CeilDiv(WantedTasks(threads), slots * groups);
    return {.items = items,
            .slots = slots,
            .groups = groups,
            .parts = std::clamp<int64_t>(std::min(repaid, rows) / groups, 1, wanted)};
  }

  int64_t steps() const { return CeilDiv(items, slots); }
  int64_t unit() const { return steps() * parts; }  // tasks of one group and slot
  int64_t tasks() const { return slots * groups * unit(); }
  int64_t row_parts() const { return groups * parts; }

  int64_t Slot(int64_t task) const { return task / unit() / groups; }
  // Which of the row_parts() a task computes.
  int64_t RowPart(int64_t task) const { return task / unit() % groups * parts + task % parts; }
  bool IsFirst(int64_t task) const { return task % unit() < parts; }
  // The item of a task; empty in the last step of a slot with fewer items than others.
  Range Items(int64_t task) const {
    const Range all = Part(items, slots, Slot(task));
    const int64_t item = all.begin + task % unit() / parts;
    return {item, std::min(item + 1, all.end)};
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_PARTITION_H_
