// Row programs of a convolution: the packed offset that each entry of a row reads, for every output phase and every
// pass over the channels of the source.
#ifndef SPARSEJAX_PLAN_CONV_PROGRAM_H_
#define SPARSEJAX_PLAN_CONV_PROGRAM_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../simd/table.h"
#include "conv_tiling.h"
#include "shared_rows.h"

namespace sparsejax {

struct ConvPattern {
  const int32_t* indptr;  // of the orientation in use, as `indices`
  const int32_t* indices;
  const int32_t* perm;  // null in the forward orientation
  int64_t in_features, out_features, groups;

  int64_t in_per_group() const { return in_features / groups; }
  int64_t out_per_group() const { return out_features / groups; }
};

// The programs of a call, ordered by phase, then by pass. The entries of a program are stored row by row, so a kernel
// reads offsets and values in order. An entry is in one program, or in none if it meets only padding.
struct ConvPrograms {
  int64_t rows, entries;
  std::vector<int32_t> row_ptr;  // rows + 1 numbers per program: positions in the arrays below
  std::unique_ptr<int32_t[]> offset;
  std::unique_ptr<int32_t[]> id;  // position of each entry in `data`; null where entry e is at position e

  RowProgram View(int64_t program) const {
    const int32_t* ptr = row_ptr.data() + program * (rows + 1);
    return {ptr, ptr + 1, offset.get(), 1};
  }

  int64_t count() const { return static_cast<int64_t>(row_ptr.size()) / (rows + 1); }

  // The size of the groups of neighbouring rows that have the same offsets in every program.
  int64_t SharedRows() const {
    int64_t shared = kMostSharedRows;
    for (int64_t i = 0; i < count() && shared > 1; ++i) {
      const RowProgram program = View(i);
      shared = std::min(shared, sparsejax::SharedRows(program.begin, program.offset, rows));
    }
    return shared;
  }

  int64_t bytes() const {
    const int64_t placed = row_ptr.back();
    const int64_t numbers = static_cast<int64_t>(row_ptr.size()) + placed * (id == nullptr ? 1 : 2);
    return numbers * static_cast<int64_t>(sizeof(int32_t));
  }
};

// The program of a tap's entries in the first pass, or -1 if the tap meets only padding, and the tap's packed offset.
struct TapPlace {
  int32_t program, offset;
};

inline std::vector<TapPlace> TapPlaces(const ConvTiling& t) {
  std::vector<TapPlace> places;
  for (int64_t i = 0; i < t.y.taps(); ++i)
    for (int64_t j = 0; j < t.x.taps(); ++j) {
      TapPlace place{-1, 0};
      for (int64_t py = 0; py < t.y.phases(); ++py)
        for (int64_t px = 0; px < t.x.phases(); ++px) {
          const Tap &ty = t.y.tap(py, i), &tx = t.x.tap(px, j);
          if (ty.valid && tx.valid)
            place = {static_cast<int32_t>((py * t.x.phases() + px) * t.passes),
                     static_cast<int32_t>(t.TapOffset(ty, tx))};
        }
      places.push_back(place);
    }
  return places;
}

// The two classes below visit the entries of a row twice: Count counts them by program, for all rows, and then Place
// stores each at position next[program] of its program. Programs are built on one thread in every call with a new
// pattern, so the loops over entries have no branches.

// The forward orientation. Rows are output features. Entry (tap, channel) of row r reads this tap of the channel in
// r's group. Entries that meet only padding are counted in one additional program, the last.
class ForwardEntries {
 public:
  ForwardEntries(const ConvTiling& t, const ConvPattern& p, int64_t count) : t_(t), p_(p) {
    for (const TapPlace& tap : TapPlaces(t)) {
      any_padding_ |= tap.program < 0;
      for (int64_t channel = 0; channel < p.in_per_group(); ++channel)
        places_.push_back({static_cast<int32_t>(tap.program < 0 ? count : tap.program + channel / t.pass_channels),
                           static_cast<int32_t>(tap.offset + channel * t.channel_stride)});
    }
  }

  bool any_padding() const { return any_padding_; }

  void Count(int64_t row, int32_t* counts) const {
    for (int32_t e = p_.indptr[row]; e < p_.indptr[row + 1]; ++e) ++counts[places_[p_.indices[e]].program];
  }

  void Place(int64_t row, int32_t* next, int32_t* offset, int32_t* id) const {
    const int32_t group = GroupOffset(row);
    for (int32_t e = p_.indptr[row]; e < p_.indptr[row + 1]; ++e) {
      const TapPlace place = places_[p_.indices[e]];
      const int32_t at = next[place.program]++;
      offset[at] = group + place.offset;
      id[at] = e;
    }
  }

  void PlaceInOrder(int64_t row, int32_t* offset) const {
    const int32_t group = GroupOffset(row);
    for (int32_t e = p_.indptr[row]; e < p_.indptr[row + 1]; ++e) offset[e] = group + places_[p_.indices[e]].offset;
  }

 private:
  int32_t GroupOffset(int64_t row) const {
    return static_cast<int32_t>(row / p_.out_per_group() * p_.in_per_group() * t_.channel_stride);
  }

  const ConvTiling& t_;
  const ConvPattern& p_;
  std::vector<TapPlace> places_;  // by column of the kernel
  bool any_padding_ = false;
};

// The transposed orientation. Rows are input features. Entry (tap, output feature) of a row reads the cotangent of
// this feature.
class TransposedEntries {
 public:
  TransposedEntries(const ConvTiling& t, const ConvPattern& p) : t_(t), p_(p), taps_(TapPlaces(t)) {
    for (int64_t f = 0; f < p.out_features; ++f) pass_.push_back(static_cast<int32_t>(f / t.pass_channels));
  }

  void Count(int64_t row, int32_t* counts) const {
    ForEachTap(row, [&](const TapPlace& tap, const int32_t* begin, const int32_t* end) {
      if (t_.passes == 1) {
        counts[tap.program] += static_cast<int32_t>(end - begin);
      } else {
        for (const int32_t* e = begin; e < end; ++e) ++counts[tap.program + pass_[*e]];
      }
    });
  }

  void Place(int64_t row, int32_t* next, int32_t* offset, int32_t* id) const {
    const auto stride = static_cast<int32_t>(t_.channel_stride);
    ForEachTap(row, [&](const TapPlace& tap, const int32_t* begin, const int32_t* end) {
      const int32_t* perm = p_.perm + (begin - p_.indices);
      const int64_t n = end - begin;
      if (t_.passes == 1) {
        int32_t* to = offset + next[tap.program];
        for (int64_t i = 0; i < n; ++i) to[i] = begin[i] * stride + tap.offset;
        std::copy_n(perm, n, id + next[tap.program]);
        next[tap.program] += static_cast<int32_t>(n);
      } else {
        for (int64_t i = 0; i < n; ++i) {
          const int32_t at = next[tap.program + pass_[begin[i]]]++;
          offset[at] = begin[i] * stride + tap.offset;
          id[at] = perm[i];
        }
      }
    });
  }

 private:
  // Calls body(tap, begin and end of its entries in the row) for every tap that meets pixels.
  template <typename Body>
  void ForEachTap(int64_t row, const Body& body) const {
    const int64_t per_group = p_.in_per_group(), outs = p_.out_per_group();
    const int64_t group = row / per_group, channel = row % per_group;
    for (size_t tap = 0; tap < taps_.size(); ++tap) {
      if (taps_[tap].program < 0) continue;
      const int64_t column = static_cast<int64_t>(tap) * per_group + channel;
      const int32_t* begin = p_.indices + p_.indptr[column];
      const int32_t* end = p_.indices + p_.indptr[column + 1];
      if (p_.groups > 1) {
        begin = std::lower_bound(begin, end, static_cast<int32_t>(group * outs));
        end = std::lower_bound(begin, end, static_cast<int32_t>((group + 1) * outs));
      }
      body(taps_[tap], begin, end);
    }
  }

  const ConvTiling& t_;
  const ConvPattern& p_;
  std::vector<TapPlace> taps_;
  std::vector<int32_t> pass_;  // by output feature
};

// `count`: number of programs, without the additional one for entries that meet only padding.
template <typename Entries>
ConvPrograms BuildPrograms(const Entries& entries, int64_t rows, int64_t count) {
  ConvPrograms out{.rows = rows,
                   .entries = 0,
                   .row_ptr = std::vector<int32_t>((count + 1) * (rows + 1)),
                   .offset = nullptr,
                   .id = nullptr};
  std::vector<int32_t> next(count + 1);
  int64_t placed = 0;
  for (int64_t row = 0; row < rows; ++row) {
    std::fill(next.begin(), next.end(), 0);
    entries.Count(row, next.data());
    for (int64_t program = 0; program <= count; ++program) {
      out.row_ptr[program * (rows + 1) + row + 1] = next[program];
      placed += next[program];
    }
  }
  // With several groups, an unsorted pattern may place entries more than once.
  if (placed > INT32_MAX) throw std::length_error("more placed entries than int32 can count");
  // Counts become positions. A program begins where the previous one ends, so one sum runs over all programs; the
  // element before the first row of each is zero.
  std::partial_sum(out.row_ptr.begin(), out.row_ptr.end(), out.row_ptr.begin());
  for (int64_t program = 0; program <= count; ++program) next[program] = out.row_ptr[program * (rows + 1)];
  out.entries = next[count];
  out.offset.reset(new int32_t[out.row_ptr.back()]);
  out.id.reset(new int32_t[out.row_ptr.back()]);
  for (int64_t row = 0; row < rows; ++row) entries.Place(row, next.data(), out.offset.get(), out.id.get());
  return out;
}

// The program of a call that needs only one and whose taps all meet pixels. Its entries are in the order of the
// pattern.
inline ConvPrograms SingleProgram(const ForwardEntries& entries, const ConvPattern& p) {
  const int64_t rows = p.out_features;
  ConvPrograms out{.rows = rows,
                   .entries = p.indptr[rows],
                   .row_ptr = {p.indptr, p.indptr + rows + 1},
                   .offset = nullptr,
                   .id = nullptr};
  out.offset.reset(new int32_t[out.entries]);
  for (int64_t row = 0; row < rows; ++row) entries.PlaceInOrder(row, out.offset.get());
  return out;
}

// `rows`: number of features of the destination.
inline ConvPrograms Programs(const ConvTiling& t, const ConvPattern& p, int64_t rows) {
  const int64_t count = t.y.phases() * t.x.phases() * t.passes;
  if (p.perm != nullptr) return BuildPrograms(TransposedEntries(t, p), rows, count);
  const ForwardEntries entries(t, p, count);
  if (count == 1 && !entries.any_padding()) return SingleProgram(entries, p);
  return BuildPrograms(entries, rows, count);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PROGRAM_H_
