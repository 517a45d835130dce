// Element types: the stored type S, the type that its sums have (float for bfloat16), and the kernels for each.
#ifndef SPARSEJAX_HANDLERS_TYPES_H_
#define SPARSEJAX_HANDLERS_TYPES_H_

#include <algorithm>
#include <exception>
#include <memory>
#include <type_traits>

#include "../plan/partition.h"
#include "../runtime/huge_pages.h"
#include "../runtime/isa.h"
#include "../runtime/parallel.h"
#include "../runtime/poison.h"
#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

template <typename S>
struct Element;

template <>
struct Element<float> {
  static const StorageKernels<float, float>& Storage() { return Table().storage_f32; }
  static const ProductKernels<float>& Products() { return Table().f32; }
  static const SumKernels<float>& Sums() { return Table().sums_f32; }
  static const AttentionKernels<float>& Attention() { return Table().attention_f32; }
};

template <>
struct Element<double> {
  static const StorageKernels<double, double>& Storage() { return Table().storage_f64; }
  static const ProductKernels<double>& Products() { return Table().f64; }
  static const SumKernels<double>& Sums() { return Table().sums_f64; }
  static const AttentionKernels<double>& Attention() { return Table().attention_f64; }
};

template <>
struct Element<bfloat16> {
  static const StorageKernels<bfloat16, float>& Storage() { return Table().storage_bf16; }
  static const ProductKernels<bfloat16>& Products() { return Table().bf16; }
  static const SumKernels<float>& Sums() { return Table().sums_f32; }
  static const AttentionKernels<float>& Attention() { return Table().attention_bf16; }
};

// Whether elements are stored in the type of their sums.
template <typename S>
constexpr bool kNative = std::is_same_v<S, Sum<S>>;

// Entries per chunk of the work that is done once per entry: gathering values, and scattering the sums of gradients.
// Such a chunk takes some ten microseconds, which is long compared with the time to draw one.
constexpr int64_t kEntriesPerChunk = 16 * 1024;

// Elements of a channel that are summed in the accumulation type. The sums of these runs are added in double, so
// rounding errors do not grow with the size of a channel.
constexpr int64_t kElementsPerRun = 4096;

// The values in the accumulation type and in the order in which kernels read them: the operand itself, or a copy with
// the lifetime of this object.
template <typename S>
class Values {
 public:
  Values(const S* data, int64_t n) {
    if constexpr (kNative<S>) {
      pointer_ = data;
    } else {
      copy_.reset(new Sum<S>[n]);
      Element<S>::Storage().load_rows(data, 1, n, n, copy_.get(), n);
      pointer_ = copy_.get();
    }
  }

  // The values data[position[i]], i < n; these values themselves where `position` is null. A row program is run many
  // times per call, so the values are gathered once, into memory in the program's order. The job calls Gather for
  // every chunk before it runs; `position` must live until then.
  Values At(const int32_t* position, int64_t n) const {
    if (position == nullptr) return *this;
    Values out = *this;
    out.position_ = position;
    out.entries_ = n;
    out.ordered_.reset(new Sum<S>[n]);
    return out;
  }

  int64_t chunks() const { return CeilDiv(entries_, kEntriesPerChunk); }
  void Gather(int64_t chunk) const {
    const int64_t begin = chunk * kEntriesPerChunk, end = std::min(begin + kEntriesPerChunk, entries_);
    for (int64_t i = begin; i < end; ++i) ordered_[i] = pointer_[position_[i]];
  }

  const Sum<S>* get() const { return position_ == nullptr ? pointer_ : ordered_.get(); }

 private:
  const Sum<S>* pointer_;
  std::shared_ptr<Sum<S>[]> copy_, ordered_;
  const int32_t* position_ = nullptr;
  int64_t entries_ = 0;
};

// The elements of an operand.
template <typename S>
const S* OperandData(const ffi::AnyBuffer& operand) {
  return reinterpret_cast<const S*>(operand.untyped_data());
}

// Prepares a result for being written and returns its elements. The memory is newly allocated in every call, so the
// system is asked for large pages where it is large. The contents are undefined until the handler writes them.
template <typename S>
S* PrepareResult(const ffi::AnyBuffer& result) {
  AdviseHugePages(result.untyped_data(), result.size_bytes());
  if (IsPoisonOn()) Poison(result.untyped_data(), result.size_bytes());
  return reinterpret_cast<S*>(result.untyped_data());
}

// The same for a result that may have the memory of an operand; then its contents remain.
template <typename S>
S* PrepareResult(const ffi::AnyBuffer& result, const ffi::AnyBuffer& operand) {
  return result.untyped_data() == operand.untyped_data() ? reinterpret_cast<S*>(result.untyped_data())
                                                         : PrepareResult<S>(result);
}

// Calls f, the body of a handler, with a value of the element type that `type` names. The caller has checked that it
// is one of the three. A failed allocation in f becomes an error of the handler.
template <typename F>
ffi::Error DispatchGuarded(ffi::DataType type, const F& f) noexcept {
  try {
    switch (type) {
      case ffi::DataType::F64:
        return f(double{});
      case ffi::DataType::BF16:
        return f(bfloat16{});
      default:
        return f(float{});
    }
  } catch (const std::exception&) {
    return OutOfMemory();
  }
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_TYPES_H_
