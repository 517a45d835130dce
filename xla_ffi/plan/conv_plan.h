// What calls of a convolution with the same pattern and geometry share.
#ifndef SPARSEJAX_PLAN_CONV_PLAN_H_
#define SPARSEJAX_PLAN_CONV_PLAN_H_

#include <cstdint>
#include <utility>

#include "conv_program.h"
#include "conv_tiling.h"

namespace sparsejax {

struct ConvPlan {
  ConvTiling tiling;
  ConvPrograms programs;

  // `rows`: number of features of the destination.
  ConvPlan(ConvTiling t, const ConvPattern& p, int64_t rows)
      : tiling(std::move(t)), programs(Programs(tiling, p, rows)) {}

  int64_t bytes() const { return tiling.bytes() + programs.bytes(); }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_PLAN_H_
