// How activations lie in memory. The buffers do not record it; the attribute `layouts` of a call does.
#ifndef SPARSEJAX_HANDLERS_LAYOUTS_H_
#define SPARSEJAX_HANDLERS_LAYOUTS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "checks.h"

namespace sparsejax {

// An attribute of several numbers; none if it is missing or has another type.
inline ffi::Span<const int64_t> Numbers(ffi::Dictionary attributes, std::string_view name) {
  const auto given = attributes.get<ffi::Span<const int64_t>>(name);
  return given.has_value() ? *given : ffi::Span<const int64_t>(nullptr, 0);
}

// Of a logical array (batch, ..., features): in that order, or with the batch fastest and the features slowest.
enum class Layout : int64_t { kBatchMinor = 0, kRowMajor = 1 };

// Of the input of a product and of its output. A cotangent has the layout of its primal.
struct Layouts {
  Layout x = Layout::kBatchMinor, y = Layout::kBatchMinor;

  // The order of the numbers is that of Layouts.attribute in sparsejax/kernels/_layout.py. Programs that sparsejax 0.1
  // has exported have no such attribute; theirs are batch-minor.
  static Layouts Decode(ffi::Dictionary attributes, Checker& check) {
    Layouts out;
    if (!attributes.contains("layouts")) return out;
    const ffi::Span<const int64_t> given = Numbers(attributes, "layouts");
    if (given.size() != 2) check.Fail("layouts", std::to_string(given.size()) + " numbers", "two");
    for (const int64_t layout : given)
      if (layout != 0 && layout != 1) check.Fail("layouts", "value " + std::to_string(layout), "0 or 1");
    if (check.ok()) out.x = static_cast<Layout>(given[0]), out.y = static_cast<Layout>(given[1]);
    return out;
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_LAYOUTS_H_
