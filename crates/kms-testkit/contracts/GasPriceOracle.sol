// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// The used part of the GasPriceOracle of OP-stack chains, with fees in the first two slots of its storage.
contract GasPriceOracle {
    uint256 private perByte;
    uint256 private perGas;

    function getL1FeeUpperBound(uint256 unsignedTxSize) external view returns (uint256) {
        return perByte * (unsignedTxSize + 68);
    }

    function getOperatorFee(uint256 gasUsed) external view returns (uint256) {
        return perGas * gasUsed;
    }
}
