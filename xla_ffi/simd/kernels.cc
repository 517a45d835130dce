// All kernels for one instruction set. Compiled once per level with -DSPARSEJAX_ISA_NAMESPACE=<level>; every symbol
// but the getter sits in an anonymous namespace, so that no function compiled for a newer processor can be the copy
// that the linker keeps for the whole library.
#include "table.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sparsejax {
namespace {

#include "vec.h"
//
#include "spmm.inc.h"
//
#include "sddmm.inc.h"
//
#include "backward.inc.h"
//
#include "storage.inc.h"
//
#include "pool.inc.h"
//
#include "norm.inc.h"
//
#include "probe.inc.h"

template <typename T>
constexpr FloatKernels<T> MakeFloatKernels() {
  constexpr int kLanes = kVectorBytes / sizeof(T);
  constexpr int kHalf = kLanes / 2, kQuarter = kLanes >= 8 ? kLanes / 4 : 1;
  return {
      kLanes,
      kMaxVecs,
      {kHalf, kQuarter, 1},
      SpmmDispatch<T, kLanes, kMaxVecs>,
      {SpmmDispatch<T, kHalf, 1>, SpmmDispatch<T, kQuarter, 1>, SpmmDispatch<T, 1, 1>},
      SddmmDispatch<T, kLanes, kMaxVecs>,
      {SddmmDispatch<T, kHalf, 1>, SddmmDispatch<T, kQuarter, 1>, SddmmDispatch<T, 1, 1>},
      BackwardDispatch<T, kLanes, kMaxVecs>,
      AddSlots<T>,
  };
}

template <typename S, typename A>
constexpr StorageKernels<S, A> MakeStorageKernels() {
  return {LoadRows<S, A>,  StoreRows<S, A>, PackPixels<S, A>, SumRun<S, A>,  DotRun<S, A>,
          SumPool<S, A>,   SumUnpool<S, A>, MaxPool<S, A>,    MaxTake<S, A>, MaxPut<S, A>,
          Moments<S, A>,   Normalize<S, A>, NormGradSums<S, A>, NormGrad<S, A>};
}

#define SPARSEJAX_STRING2(x) #x
#define SPARSEJAX_STRING(x) SPARSEJAX_STRING2(x)

}  // namespace

namespace SPARSEJAX_ISA_NAMESPACE {

const KernelTable& GetTable() {
  static constexpr KernelTable table = {
      SPARSEJAX_STRING(SPARSEJAX_ISA_NAMESPACE),
      MakeFloatKernels<float>(),
      MakeFloatKernels<double>(),
      MakeStorageKernels<float, float>(),
      MakeStorageKernels<double, double>(),
      MakeStorageKernels<bfloat16, float>(),
      AllBelow,
      {2 * kMaxVecs * static_cast<int>(kVectorBytes / sizeof(float)), ProbeFma, ProbeRead},
  };
  return table;
}

}  // namespace SPARSEJAX_ISA_NAMESPACE
}  // namespace sparsejax
